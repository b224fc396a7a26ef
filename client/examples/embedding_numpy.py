# SPDX-License-Identifier: Apache-2.0
"""Which images look alike? Embeddings by a site's own mask, compared with numpy.

    python3 embedding_numpy.py SITE FILE FILE...

A line a file: the file that is most like it, and the cosine of their embeddings.
"""

import sys

import kamen
import numpy

N_SLOTS = 8


def embeddings(site, paths):
    """(N, D), of length 1 each. Several images are in flight at a time."""
    results = {}
    with kamen.Client(n_slots=N_SLOTS) as client:
        for index, path in enumerate(paths):
            if index >= N_SLOTS:
                keep(client.wait(), results)
            with open(path, "rb") as file:
                client.submit(site, file.read(), embedding=True, part_id=index)
        while len(results) < len(paths):
            keep(client.wait(), results)
    if len({result.space for result in results.values()}) > 1:
        sys.exit("another mask was promoted meanwhile: embeddings of two spaces")
    rows = numpy.stack([numpy.frombuffer(results[index].embedding, numpy.float32)
                        for index in range(len(paths))])
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def keep(result, results):
    if result.code < 0:
        sys.exit(result.reason)
    results[result.part_id] = result


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    site, *paths = sys.argv[1:]
    rows = embeddings(site, paths)
    cosines = rows @ rows.T
    numpy.fill_diagonal(cosines, -1)
    for path, row in zip(paths, cosines):
        print(f"{path} {paths[row.argmax()]} {row.max():.4f}")


if __name__ == "__main__":
    main()
