/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice config`: keys of instances. */

#include "cli/run.h"
#include "cli/show.h"

int prepare_config_set(struct request *request, struct coppice_error *err)
{
	return settings_parse(request, &request->words, 1, true, err);
}

int prepare_config_unset(struct request *request, struct coppice_error *err)
{
	return settings_unset(request, 1, err);
}

int run_config_set(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	return coppice_config_set(coppice, request->words.word[0], request->settings,
				  request->n_settings, err);
}

int run_config_get(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	_cleanup_(coppice_instance_list_free) struct coppice_instance_list list = { 0 };
	const char *value;
	int r = coppice_instance_get(coppice, request->words.word[0], COPPICE_DETAIL_CONFIG, &list,
				     err);

	if (r < 0)
		return r;
	/* An empty line for a key that is not set, as LXD does. */
	value = settings_get(&list.instance[0].config, request->words.word[1]);
	(void)printf("%s\n", value ? value : "");
	return COPPICE_OK;
}

int settings_show(const struct coppice_settings *settings, enum format format,
		  struct coppice_error *err)
{
	static const struct column columns[] = { { "KEY", false }, { "VALUE", false } };
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, columns, ARRAY_SIZE(columns));
	struct doc doc = doc_start(stdout, format);

	if (!format_is_sheet(format)) {
		doc_settings(&doc, NULL, settings);
		return COPPICE_OK;
	}
	for (size_t i = 0; i < settings->n; i++) {
		sheet_text(&sheet, settings->setting[i].key);
		sheet_text(&sheet, settings->setting[i].value);
	}
	return sheet_end(&sheet, err);
}

int run_config_show(const struct request *request, struct coppice *coppice,
		    struct coppice_error *err)
{
	_cleanup_(coppice_instance_list_free) struct coppice_instance_list list = { 0 };
	int r = coppice_instance_get(coppice, request->words.word[0], COPPICE_DETAIL_CONFIG, &list,
				     err);

	if (r < 0)
		return r;
	return settings_show(&list.instance[0].config, request_format(request, FORMAT_YAML), err);
}
