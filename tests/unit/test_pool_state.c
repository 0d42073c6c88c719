/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at work on a pool, and what the dead left, as the files beside it tell. */

#include "driver/generic/pool_state.h"

#include "scratch.h"
#include "tap.h"

/* ---- what the dead left ---- */

struct owing {
	struct pool_state a, b; /* two who are at work on the same pool */
};

static void owing_make(struct owing *owing)
{
	struct state_debts none = { 0 };

	scratch_make("owing");
	*owing = (struct owing){ .a = { .path = scratch, .owed_fd = -1 },
				 .b = { .path = scratch, .owed_fd = -1 } };
	ok(!state_is_clean(&owing->a)); /* a state directory that was lost */
	state_debts_paid(&owing->a, &none);
	ok(state_is_clean(&owing->a));
}

static void die(struct pool_state *state)
{
	ok(state->owed_fd >= 0);
	(void)close(take_fd(&state->owed_fd));
}

static void test_what_the_dead_owe_is_known(void)
{
	struct state_debts debts;
	struct owing owing;

	owing_make(&owing);
	state_owe(&owing.a);
	state_owe(&owing.a);
	ok(state_is_clean(&owing.b)); /* who lives pays himself */
	ok(!state_is_clean(&owing.a));
	die(&owing.a);
	ok(!state_is_clean(&owing.b));
	state_debts_take(&owing.b, &debts);
	ok_int(debts.n, ==, 1);
	state_debts_done(&debts); /* could not be paid */
	ok(!state_is_clean(&owing.b));
	state_debts_take(&owing.b, &debts);
	state_debts_paid(&owing.b, &debts);
	ok(state_is_clean(&owing.b));
	state_owe(&owing.a);
	state_owe_nothing(&owing.a);
	ok(state_is_clean(&owing.a) && state_is_clean(&owing.b));
}

/* Who looks what there is to reap does not see what is taken out of sight after that. */
static void test_who_reaps_does_not_pay_for_who_dies_meanwhile(void)
{
	struct state_debts debts;
	struct owing owing;

	owing_make(&owing);
	state_owe(&owing.a);
	state_debts_take(&owing.a, &debts);
	state_owe(&owing.b);
	die(&owing.b);
	state_debts_paid(&owing.a, &debts);
	ok(!state_is_clean(&owing.a));
}

static void test_another_start_of_the_machine_is_not_believed(void)
{
	struct owing owing;

	owing_make(&owing);
	ok_int(shell("echo 6ba7b810-9dad-41d1-80b4-00c04fd430c8 >clean"), ==, 0);
	ok(!state_is_clean(&owing.a));
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_what_the_dead_owe_is_known),
		TAP(test_who_reaps_does_not_pay_for_who_dies_meanwhile),
		TAP(test_another_start_of_the_machine_is_not_believed),
		TAP_END,
	});
}
