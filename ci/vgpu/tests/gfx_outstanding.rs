//! Which weaker waits are proved to change nothing: the code's text alone, on every path.

mod common;

use common::gfx::{assemble, kernel};
use halfstep_vgpu::gfx::{CodeObject, Outstanding};
use halfstep_vgpu::memory::GlobalMemory;

fn outstanding(body: &str) -> Option<Outstanding> {
    let object = CodeObject::parse(&assemble(&kernel(&body.replace(';', "\n"), 64))?).unwrap();
    let program = object.load(&mut GlobalMemory::new()).unwrap().program("k").unwrap();
    Some(program.outstanding().expect("no code jumps"))
}

/// Whether the code with one wait, which stands for `@`, is the same with another.
fn same(body: &str, wait: &str, weaker: &str) -> Option<bool> {
    let with = |wait: &str| outstanding(&body.replace('@', wait));
    Some(with(weaker)?.within(&with(wait)?))
}

macro_rules! proves {
    ($name:ident, $wanted:literal, $wait:literal => $weaker:literal, $body:literal) => {
        #[test]
        fn $name() {
            let Some(same) = same($body, $wait, $weaker) else { return };
            assert_eq!(same, $wanted);
        }
    };
}

proves!(a_wait_for_nothing, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "v_mov_b32 v1, 0; @; v_mov_b32 v2, v1");
proves!(a_wait_that_is_needed, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; @; v_mov_b32 v2, v1");
proves!(a_wait_before_a_stronger_one, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; @; s_waitcnt vmcnt(0); v_mov_b32 v2, v1");
proves!(a_wait_before_an_overwriting_load, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; @; global_load_dword v1, v0, s[6:7]; s_waitcnt vmcnt(0); v_mov_b32 v2, v1");
proves!(a_wait_before_an_overwriting_move, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; @; v_mov_b32 v1, 0");
proves!(one_of_two_loads, true, "s_waitcnt vmcnt(0)" => "s_waitcnt vmcnt(1)", "global_load_dword v1, v0, s[4:5]; global_load_dword v2, v0, s[4:5]; @; v_mov_b32 v3, v1");
proves!(the_other_of_two_loads, false, "s_waitcnt vmcnt(0)" => "s_waitcnt vmcnt(1)", "global_load_dword v1, v0, s[4:5]; global_load_dword v2, v0, s[4:5]; @; v_mov_b32 v3, v2");
proves!(scalar_loads_come_in_any_order, false, "s_waitcnt lgkmcnt(0)" => "s_waitcnt lgkmcnt(1)", "s_load_dword s8, s[4:5], 0; s_load_dword s9, s[4:5], 0; @; s_mov_b32 s10, s8");
proves!(one_path_needs_it, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; s_waitcnt vmcnt(0); .La: ; @; v_mov_b32 v2, v1");
proves!(every_path_has_waited, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; s_waitcnt vmcnt(0); s_branch .Lb; .La: ; s_waitcnt vmcnt(0); .Lb: ; @; v_mov_b32 v2, v1");
proves!(a_loop_brings_it_back, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "v_mov_b32 v1, 0; .La: ; @; v_mov_b32 v2, v1; global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; s_waitcnt vmcnt(0)");
proves!(lds_before_a_barrier, false, "s_waitcnt lgkmcnt(0)" => "s_nop 0", "ds_write_b32 v0, v0; @; s_barrier");
proves!(stores_before_a_barrier, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_store_dword v0, v0, s[4:5]; @; s_barrier");
proves!(stores_before_an_atomic, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_store_dword v0, v0, s[4:5]; @; global_atomic_add v0, v0, s[4:5] offset:64");
proves!(a_comparison_comes_out_the_same, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; s_waitcnt vmcnt(0); .La: ; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .Lb; @; v_mov_b32 v2, v1; .Lb:");
proves!(not_of_a_register_that_has_changed, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; s_waitcnt vmcnt(0); .La: ; s_add_u32 s2, s2, 1; s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .Lb; @; v_mov_b32 v2, v1; .Lb:");
proves!(a_mask_of_all_lanes_or_none, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 0; s_cselect_b64 s[8:9], -1, 0; s_and_b64 vcc, exec, s[8:9]; s_cbranch_vccnz .La; s_waitcnt vmcnt(0); .La: ; s_and_b64 vcc, exec, s[8:9]; s_cbranch_vccnz .Lb; @; v_mov_b32 v2, v1; s_cmp_eq_u32 s2, 0; .Lb:");
proves!(a_mask_says_nothing_where_no_lane_may_run, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; v_cmp_eq_u32 vcc, 0, v0; s_and_saveexec_b64 s[10:11], vcc; s_cmp_eq_u32 s2, 0; s_cselect_b64 s[8:9], -1, 0; s_andn2_b64 vcc, exec, s[8:9]; s_cbranch_vccz .La; s_waitcnt vmcnt(0); .La: ; s_or_b64 exec, exec, s[10:11]; s_andn2_b64 vcc, exec, s[8:9]; s_cbranch_vccz .Lb; @; v_mov_b32 v2, v1; s_cmp_eq_u32 s2, 0; .Lb:");
proves!(comparisons_with_other_constants, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_gt_i32 s2, 3; s_cbranch_scc0 .La; s_waitcnt vmcnt(0); .La: ; s_cmp_lt_i32 s2, 4; s_cbranch_scc1 .Lb; @; v_mov_b32 v2, v1; .Lb:");
proves!(a_constant_that_says_less, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_gt_i32 s2, 4; s_cbranch_scc0 .La; s_waitcnt vmcnt(0); .La: ; s_cmp_lt_i32 s2, 4; s_cbranch_scc1 .Lb; @; v_mov_b32 v2, v1; .Lb:");
proves!(a_negative_number_is_large_without_a_sign, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_gt_i32 s2, 3; s_cbranch_scc0 .La; s_waitcnt vmcnt(0); .La: ; s_cmp_lt_u32 s2, 4; s_cbranch_scc1 .Lb; @; v_mov_b32 v2, v1; .Lb:");
proves!(both_halves_of_a_pair_count, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u64 s[2:3], 0; s_cbranch_scc1 .La; s_waitcnt vmcnt(0); .La: ; s_mov_b32 s3, 1; s_cmp_eq_u64 s[2:3], 0; s_cbranch_scc1 .Lb; @; v_mov_b32 v2, v1; .Lb:");
proves!(one_way_or_the_other_lanes_run, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "v_cmp_eq_u32 vcc, 0, v0; s_and_saveexec_b64 s[10:11], vcc; s_xor_b64 s[8:9], exec, s[10:11]; s_cbranch_execz .La; v_mov_b32 v3, 0; .La: ; s_andn2_saveexec_b64 s[8:9], s[8:9]; s_cbranch_execz .Lb; v_mov_b32 v3, 1; .Lb: ; s_or_b64 exec, exec, s[8:9]; s_cbranch_execnz .Lc; global_load_dword v1, v0, s[4:5]; .Lc: ; @; v_mov_b32 v2, v1");
proves!(one_way_alone_none_may_run, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "v_cmp_eq_u32 vcc, 0, v0; s_and_saveexec_b64 s[10:11], vcc; s_xor_b64 s[8:9], exec, s[10:11]; s_cbranch_execz .La; v_mov_b32 v3, 0; .La: ; s_andn2_saveexec_b64 s[8:9], s[8:9]; s_cbranch_execz .Lb; v_mov_b32 v3, 1; .Lb: ; s_cbranch_execnz .Lc; global_load_dword v1, v0, s[4:5]; .Lc: ; @; v_mov_b32 v2, v1");
proves!(a_saved_mask_that_was_written_is_another, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "v_cmp_eq_u32 vcc, 0, v0; s_and_saveexec_b64 s[10:11], vcc; s_mov_b32 s11, s2; s_or_b64 exec, exec, s[10:11]; s_cbranch_execnz .Lc; global_load_dword v1, v0, s[4:5]; .Lc: ; @; v_mov_b32 v2, v1");
proves!(where_none_run_the_saved_ones_do, true, "s_waitcnt vmcnt(0)" => "s_nop 0", "v_cmp_eq_u32 vcc, 0, v0; s_and_saveexec_b64 s[10:11], vcc; s_xor_b64 s[8:9], exec, s[10:11]; s_cbranch_execnz .La; s_mov_b64 exec, s[8:9]; s_cbranch_execnz .La; global_load_dword v1, v0, s[4:5]; .La: ; @; v_mov_b32 v2, v1");
proves!(a_bit_is_no_number, false, "s_waitcnt vmcnt(0)" => "s_nop 0", "global_load_dword v1, v0, s[4:5]; s_cmp_eq_u32 s2, 1; s_cbranch_scc1 .La; s_cmp_eq_u32 s2, 3; s_cbranch_scc1 .La; s_bitcmp0_b32 s2, 4; s_cbranch_scc0 .La; @; v_mov_b32 v2, v1; .La:");
