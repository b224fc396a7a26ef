/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_CTL_H
#define KAMENCTL_CTL_H

#include "cli.h"

int status_run(struct ctl *ctl, int argc, char **argv);
int restart_run(struct ctl *ctl, int argc, char **argv);
int metrics_run(struct ctl *ctl, int argc, char **argv);
int site_create_run(struct ctl *ctl, int argc, char **argv);
int site_list_run(struct ctl *ctl, int argc, char **argv);
int site_show_run(struct ctl *ctl, int argc, char **argv);
int site_delete_run(struct ctl *ctl, int argc, char **argv);
int site_pause_run(struct ctl *ctl, int argc, char **argv);
int site_freeze_run(struct ctl *ctl, int argc, char **argv);
int site_resume_run(struct ctl *ctl, int argc, char **argv);
int site_reset_run(struct ctl *ctl, int argc, char **argv);
int site_hardest_run(struct ctl *ctl, int argc, char **argv);
int top_run(struct ctl *ctl, int argc, char **argv);
int push_run(struct ctl *ctl, int argc, char **argv);
int learn_run(struct ctl *ctl, int argc, char **argv);
int label_run(struct ctl *ctl, int argc, char **argv);
int label_list_run(struct ctl *ctl, int argc, char **argv);
int class_add_run(struct ctl *ctl, int argc, char **argv);
int class_list_run(struct ctl *ctl, int argc, char **argv);
int class_remove_run(struct ctl *ctl, int argc, char **argv);
int mask_list_run(struct ctl *ctl, int argc, char **argv);
int mask_show_run(struct ctl *ctl, int argc, char **argv);
int mask_promote_run(struct ctl *ctl, int argc, char **argv);
int mask_rollback_run(struct ctl *ctl, int argc, char **argv);
int mask_pin_run(struct ctl *ctl, int argc, char **argv);
int mask_unpin_run(struct ctl *ctl, int argc, char **argv);
int mask_reproduce_run(struct ctl *ctl, int argc, char **argv);
int mask_export_run(struct ctl *ctl, int argc, char **argv);
int mask_import_run(struct ctl *ctl, int argc, char **argv);
int mask_verify_run(struct ctl *ctl, int argc, char **argv);
int mask_diff_run(struct ctl *ctl, int argc, char **argv);
int mask_keygen_run(struct ctl *ctl, int argc, char **argv);
int mask_sign_run(struct ctl *ctl, int argc, char **argv);
int zmq_keygen_run(struct ctl *ctl, int argc, char **argv);
int audit_show_run(struct ctl *ctl, int argc, char **argv);
int audit_verify_run(struct ctl *ctl, int argc, char **argv);
int audit_export_run(struct ctl *ctl, int argc, char **argv);
int infer_run(struct ctl *ctl, int argc, char **argv);
int eval_run(struct ctl *ctl, int argc, char **argv);

#endif
