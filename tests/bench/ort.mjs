// SPDX-License-Identifier: Apache-2.0
// The peer of a forward pass: ONNX Runtime on the same pixels.
//   ort.mjs version
//   ort.mjs run MODEL.onnx PIXELS EMBEDDINGS BATCH PX SECONDS THREADS
//   ort.mjs compare EMBEDDINGS EMBEDDINGS
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';

const N_WARM = 5;

// From $KAMEN_ORT, a folder with node_modules in it, or as node finds it from here.
const require = createRequire(process.env.KAMEN_ORT ? process.env.KAMEN_ORT + '/' : import.meta.url);

function floats(path) {
	const bytes = readFileSync(path);
	return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

async function run(model, pixels, embeddings, batch, px, seconds, threads) {
	const ort = require('onnxruntime-node');
	const session = await ort.InferenceSession.create(model, {
		executionProviders: ['cpu'],
		intraOpNumThreads: threads,
		interOpNumThreads: 1,
		graphOptimizationLevel: 'all',
	});
	const input = new ort.Tensor('float32', floats(pixels), [batch, 3, px, px]);
	let last;
	for (let i = 0; i < N_WARM; i++)
		last = await session.run({ pixels: input });
	const ms = [], begin = process.hrtime.bigint();
	do {
		const before = process.hrtime.bigint();
		last = await session.run({ pixels: input });
		ms.push(Number(process.hrtime.bigint() - before) * 1e-6);
	} while (Number(process.hrtime.bigint() - begin) < seconds * 1e9);
	ms.sort((a, b) => a - b);
	writeFileSync(embeddings, new Uint8Array(last.embeddings.data.buffer,
		last.embeddings.data.byteOffset, last.embeddings.data.byteLength));
	console.log(`ms_p50 ${ms[ms.length >> 1].toFixed(4)} runs ${ms.length}`);
}

// All rows as one vector.
function compare(a, b) {
	let most = a.length === b.length ? 0 : Infinity, dot = 0, aa = 0, bb = 0;
	for (let i = 0; i < a.length; i++) {
		const d = Math.abs(a[i] - b[i]);
		if (!(d <= most))
			most = d;
		dot += a[i] * b[i];
		aa += a[i] * a[i];
		bb += b[i] * b[i];
	}
	console.log(`diff ${most.toExponential(3)} cosine ${(dot / Math.sqrt(aa * bb)).toFixed(6)}`);
}

const [verb, ...args] = process.argv.slice(2);
if (verb === 'version')
	console.log(require('onnxruntime-node/package.json').version);
else if (verb === 'run')
	await run(args[0], args[1], args[2], ...args.slice(3).map(Number));
else if (verb === 'compare')
	compare(floats(args[0]), floats(args[1]));
else
	process.exit(2);
