"""The counter of kernels, waits and bytes, on a program whose numbers can be said by hand."""

from tests.programs.count import Cost, costs, dearest, mean, size_of

TEXT = """
HloModule jit_run, is_scheduled=true

%fused (param_0: f32[4,8], param_1: s32[]) -> f32[1,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,8]{1,0} dynamic-slice(%param_0, %param_1, %zero), dynamic_slice_sizes={1,8}
}

%body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %row = f32[1,8]{1,0} fusion(%x, %n), kind=kLoop, calls=%fused
  ROOT %next = (s32[], f32[4,8]{1,0}) tuple(%n, %x)
}

%condition (state.1: (s32[], f32[4,8])) -> pred[] {
  %state.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %n.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%n.1, %n.1), direction=LT
}

%nothing (kept: f32[4,8]) -> f32[4,8] {
  ROOT %kept = f32[4,8]{1,0} parameter(0)
}

%negated (turned: f32[4,8]) -> f32[4,8] {
  %turned = f32[4,8]{1,0} parameter(0)
  ROOT %negative = f32[4,8]{1,0} negate(%turned)
}

%command_buffer (given: f32[4,8], coin: pred[]) -> f32[4,8] {
  %given = f32[4,8]{1,0} parameter(0)
  %coin = pred[] parameter(1)
  ROOT %chosen = f32[4,8]{1,0} conditional(%coin, %given, %given), true_computation=%negated, false_computation=%nothing
}

ENTRY %main (x.1: f32[4,8], coin.1: pred[]) -> f32[4,8] {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %coin.1 = pred[] parameter(1)
  %start = s32[] constant(0)
  %begin = (s32[], f32[4,8]{1,0}) tuple(%start, %x.1)
  %loop = (s32[], f32[4,8]{1,0}) while(%begin), condition=%condition, body=%body%known
  %looped = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  %decided = f32[4,8]{1,0} conditional(%coin.1, %looped, %looped), branch_computations={%negated, %nothing}
  ROOT %last = f32[4,8]{1,0} call(%decided, %coin.1), to_apply=%command_buffer
}
"""
KNOWN = ', backend_config={"known_trip_count":{"n":"3"}}'
VOLUME, ROW = 4 * 8 * 4, 8 * 4


def test_a_loop_counts_its_turns_and_a_conditional_its_dearest_branch():
    """Three rows are read and written, each with its index; two volumes are negated; outside of a graph one coin waits."""
    found = costs(TEXT.replace("%known", KNOWN), dearest)
    assert found == Cost(3 + 2, 1, 3 * (2 * ROW + 4) + 2 * 2 * VOLUME)._asdict()


def test_the_host_waits_for_a_loop_whose_turns_are_not_known():
    """One turn, with the comparison that ends it: two numbers are read, a truth value is written."""
    found = costs(TEXT.replace("%known", ""), dearest)
    assert found == Cost(1 + 1 + 2, 1 + 1, 2 * ROW + 4 + (4 + 4 + 1) + 2 * 2 * VOLUME)._asdict()


def test_branches_that_are_as_likely():
    """Of two coins each negates a volume half of the time."""
    found = costs(TEXT.replace("%known", KNOWN), mean)
    assert found == Cost(3 + 1, 1, 3 * (2 * ROW + 4) + 2 * VOLUME)._asdict()


def test_sizes():
    assert size_of("(f32[2,3]{1,0}, pred[], s8[5])") == 24 + 1 + 5
