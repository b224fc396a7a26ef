/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <lapacke.h>

#include "learn/gmm_fit.h"

/* So that a component without a row divides by something. */
#define NOBODY 2.2e-15

/** The mixture while it is fitted, in double. */
struct fit {
	const float *rows;
	uint32_t n, dim, k;
	double *shares;   /* (n, k): of a row in a component */
	double *masses;   /* (k): rows of a component */
	double *means;    /* (k, dim) */
	double *factors;  /* (k, dim, dim): inverse of the covariance's Cholesky factor, lower */
	double *log_dets; /* (k): of the factors */
	double *offset;   /* (dim) */
};

struct gmm_options gmm_options_default(void)
{
	return (struct gmm_options){ .tolerance = 1e-3, .ridge = 1e-6, .max_iterations = 100 };
}

static void fit_done(struct fit *fit)
{
	free(fit->shares);
}

/* All arrays in one; zero. */
static int fit_new(struct fit *fit)
{
	size_t n = fit->n, dim = fit->dim, k = fit->k;
	double *p = calloc(n * k + 2 * k + k * dim + k * dim * dim + dim, sizeof(*p));

	if (!p)
		return -ENOMEM;
	fit->shares = p;
	fit->masses = p + n * k;
	fit->log_dets = fit->masses + k;
	fit->means = fit->log_dets + k;
	fit->factors = fit->means + k * dim;
	fit->offset = fit->factors + k * dim * dim;
	return 0;
}

static void take_means(struct fit *fit)
{
	memset(fit->means, 0, (size_t)fit->k * fit->dim * sizeof(*fit->means));
	for (uint32_t c = 0; c < fit->k; c++)
		fit->masses[c] = NOBODY;
	for (uint32_t i = 0; i < fit->n; i++)
		for (uint32_t c = 0; c < fit->k; c++) {
			double share = fit->shares[(size_t)i * fit->k + c];
			double *mean = fit->means + (size_t)c * fit->dim;

			fit->masses[c] += share;
			for (uint32_t j = 0; j < fit->dim; j++)
				mean[j] += share * (double)fit->rows[(size_t)i * fit->dim + j];
		}
	for (uint32_t c = 0; c < fit->k; c++)
		for (uint32_t j = 0; j < fit->dim; j++)
			fit->means[(size_t)c * fit->dim + j] /= fit->masses[c];
}

static void take_offset(struct fit *fit, uint32_t i, uint32_t c)
{
	for (uint32_t j = 0; j < fit->dim; j++)
		fit->offset[j] = (double)fit->rows[(size_t)i * fit->dim + j] -
				 fit->means[(size_t)c * fit->dim + j];
}

/* Lower triangle of the covariance of component c, into its factor's place. */
static void take_covariance(struct fit *fit, uint32_t c, double ridge)
{
	uint32_t dim = fit->dim;
	double *covariance = fit->factors + (size_t)c * dim * dim;

	memset(covariance, 0, (size_t)dim * dim * sizeof(*covariance));
	for (uint32_t i = 0; i < fit->n; i++) {
		double share = fit->shares[(size_t)i * fit->k + c];

		if (share <= 0)
			continue;
		take_offset(fit, i, c);
		for (uint32_t a = 0; a < dim; a++)
			for (uint32_t b = 0; b <= a; b++)
				covariance[(size_t)a * dim + b] +=
					share * fit->offset[a] * fit->offset[b];
	}
	for (size_t a = 0; a < (size_t)dim * dim; a++)
		covariance[a] /= fit->masses[c];
	for (uint32_t a = 0; a < dim; a++)
		covariance[(size_t)a * dim + a] += ridge;
}

static int maximise(struct fit *fit, double ridge)
{
	lapack_int dim = (lapack_int)fit->dim;

	take_means(fit);
	for (uint32_t c = 0; c < fit->k; c++) {
		double *factor = fit->factors + (size_t)c * fit->dim * fit->dim;

		take_covariance(fit, c, ridge);
		if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', dim, factor, dim) != 0 ||
			LAPACKE_dtrtri(LAPACK_ROW_MAJOR, 'L', 'N', dim, factor, dim) != 0)
			return -EDOM;
		fit->log_dets[c] = 0;
		for (uint32_t a = 0; a < fit->dim; a++)
			fit->log_dets[c] += log(factor[(size_t)a * fit->dim + a]);
	}
	return 0;
}

static double distance2(struct fit *fit, uint32_t i, uint32_t c)
{
	const double *factor = fit->factors + (size_t)c * fit->dim * fit->dim;
	double sum = 0;

	take_offset(fit, i, c);
	for (uint32_t a = 0; a < fit->dim; a++) {
		double along = 0;

		for (uint32_t b = 0; b <= a; b++)
			along += factor[(size_t)a * fit->dim + b] * fit->offset[b];
		sum += along * along;
	}
	return sum;
}

/* New shares. @return the mean log likelihood */
static double expect(struct fit *fit)
{
	double constant = -.5 * fit->dim * log(2 * 3.14159265358979323846), sum = 0;

	for (uint32_t i = 0; i < fit->n; i++) {
		double *shares = fit->shares + (size_t)i * fit->k;
		double largest = -INFINITY, total = 0;

		for (uint32_t c = 0; c < fit->k; c++) {
			shares[c] = log(fit->masses[c] / fit->n) + constant + fit->log_dets[c] -
				    distance2(fit, i, c) / 2;
			largest = fmax(largest, shares[c]);
		}
		for (uint32_t c = 0; c < fit->k; c++) {
			shares[c] = exp(shares[c] - largest);
			total += shares[c];
		}
		for (uint32_t c = 0; c < fit->k; c++)
			shares[c] /= total;
		sum += largest + log(total);
	}
	return sum / fit->n;
}

static int take_result(struct gmm **ret_gmm, const struct fit *fit)
{
	_cleanup_(gmm_freep) struct gmm *gmm = NULL;
	size_t dim = fit->dim, size = gmm_factor_size(fit->dim);
	int r = gmm_new(&gmm, fit->k, fit->dim);

	if (r < 0)
		return r;
	for (uint32_t c = 0; c < fit->k; c++) {
		const double *factor = fit->factors + c * dim * dim;
		float *packed = gmm->factors + c * size;

		gmm->bias[c] = (float)(log(fit->masses[c] / fit->n) + fit->log_dets[c]);
		for (uint32_t a = 0; a < dim; a++)
			for (uint32_t b = 0; b <= a; b++)
				*packed++ = (float)factor[a * dim + b];
	}
	for (size_t i = 0; i < fit->k * dim; i++)
		gmm->means[i] = (float)fit->means[i];
	*ret_gmm = TAKE_PTR(gmm);
	return 0;
}

static int climb(struct fit *fit, const struct gmm_options *options, double *ret_likelihood,
	uint32_t *ret_n_iterations)
{
	double likelihood = -INFINITY, before;
	uint32_t n = 0;
	int r = maximise(fit, options->ridge);

	while (r == 0 && n < options->max_iterations) {
		before = likelihood;
		likelihood = expect(fit);
		r = maximise(fit, options->ridge);
		n++;
		if (fabs(likelihood - before) < options->tolerance)
			break;
	}
	*ret_likelihood = likelihood;
	*ret_n_iterations = n;
	return r;
}

int gmm_refine(struct gmm **ret_gmm, const float *rows, uint32_t n, uint32_t dim,
	uint32_t n_components, const uint32_t *owners, const struct gmm_options *options)
{
	_cleanup_(
		fit_done) struct fit fit = { .rows = rows, .n = n, .dim = dim, .k = n_components };
	_cleanup_(gmm_freep) struct gmm *gmm = NULL;
	double likelihood;
	uint32_t n_iterations;
	int r;

	if (n == 0 || dim == 0 || n_components == 0)
		return -EINVAL;
	r = fit_new(&fit);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		if (owners[i] >= n_components)
			return -EINVAL;
		fit.shares[(size_t)i * n_components + owners[i]] = 1;
	}
	r = climb(&fit, options, &likelihood, &n_iterations);
	if (r == 0)
		r = take_result(&gmm, &fit);
	if (r < 0)
		return r;
	gmm->likelihood = likelihood;
	gmm->n_iterations = n_iterations;
	*ret_gmm = TAKE_PTR(gmm);
	return 0;
}

int gmm_fit(struct gmm **ret_gmm, const float *rows, uint32_t n, uint32_t dim,
	uint32_t n_components, uint64_t seed, const struct gmm_options *options)
{
	_cleanup_(freep) uint32_t *owners = malloc((n + 1u) * sizeof(*owners));
	int r;

	if (!owners)
		return -ENOMEM;
	r = gmm_kmeans(owners, rows, n, dim, n_components, seed);
	return r < 0 ? r : gmm_refine(ret_gmm, rows, n, dim, n_components, owners, options);
}
