/* SPDX-License-Identifier: Apache-2.0 */
#include "class_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

void class_table_done(struct class_table *table)
{
	for (uint32_t i = 0; i < table->n; i++)
		free(table->names[i]);
	free(table->names);
	free(table->means);
	free(table->n_images);
}

static int table_grow(struct class_table *table)
{
	const uint32_t room = table->room ? 2 * table->room : 16;
	char **names = realloc(table->names, room * sizeof(*names));
	uint32_t *n_images;
	float *means;

	if (!names)
		return -ENOMEM;
	table->names = names;
	n_images = realloc(table->n_images, room * sizeof(*n_images));
	if (!n_images)
		return -ENOMEM;
	table->n_images = n_images;
	means = realloc(table->means, (size_t)room * table->dim * sizeof(*means));
	if (!means)
		return -ENOMEM;
	table->means = means;
	table->room = room;
	return 0;
}

static int table_add(struct class_table *table, const Kamen__ClassPrototype *row)
{
	const size_t n_bytes = row->mean.len;
	int r;

	if (table->n == 0) {
		table->dim = (uint32_t)(n_bytes / sizeof(float));
		table->temperature = row->temperature;
		if (table->dim == 0 || row->space.len != CLASS_TABLE_SPACE)
			return -EPROTO;
		memcpy(table->space, row->space.data, CLASS_TABLE_SPACE);
	}
	if (n_bytes != table->dim * sizeof(float))
		return -EPROTO;
	r = table->n == table->room ? table_grow(table) : 0;
	if (r < 0)
		return r;
	table->names[table->n] = strdup(row->name);
	if (!table->names[table->n])
		return -ENOMEM;
	table->n_images[table->n] = row->images;
	memcpy(table->means + (size_t)table->n++ * table->dim, row->mean.data, n_bytes);
	return 0;
}

int class_table_ask(struct ctl *ctl, const char *site, struct class_table *table)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName named = KAMEN__SITE_NAME__INIT;
	const Kamen__Reply *reply;
	int r = 0, status;

	named.site = (char *)(uintptr_t)site;
	request.verb_case = KAMEN__REQUEST__VERB_CLASS_PROTOTYPES;
	request.class_prototypes = &named;
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = control_send(control, &request, -1);
	while (status == EXIT_DONE && r == 0) {
		status = control_next(control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case == KAMEN__REPLY__ROW_CLASS_PROTOTYPE)
			r = table_add(table, reply->class_prototype);
	}
	if (r == 0 && status == EXIT_DONE && table->n == 0)
		r = -ENODATA;
	return r < 0 ? ctl_fail(ctl, EXIT_FAILED, "classes of %s: %s", site, strerror(-r)) : status;
}

int class_table_prototypes(struct prototypes **ret_prototypes, const struct class_table *table)
{
	return prototypes_of_means(ret_prototypes, table->means, table->n_images, table->n,
		table->dim, table->temperature);
}
