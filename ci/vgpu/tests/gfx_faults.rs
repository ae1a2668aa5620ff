//! Planted faults, in assembly, as no compiler writes them: each must be found, and its repaired
//! twin must be clean.

mod common;

use common::gfx::{assemble, kernel};
use common::*;
use halfstep_vgpu::finding::Kind;
use halfstep_vgpu::gfx::CodeObject;
use halfstep_vgpu::memory::GlobalMemory;

/// `s[4:5]` is 64 words that are defined, `s[6:7]` 64 that are not; `v1` is four times the thread's
/// index, `v2` the thread's word of the first, `v3` is 7, `v30` to `v40` nobody has written.
const HEAD: &str = "
s_load_dwordx4 s[4:7], s[0:1], 0x0
v_lshlrev_b32_e32 v1, 2, v0
v_mov_b32_e32 v3, 7
s_waitcnt lgkmcnt(0)
v_and_b32_e32 v4, 0xfc, v1
global_load_dword v2, v4, s[4:5]
s_waitcnt vmcnt(0)
";

fn found(body: &str, blocks: u32, threads: u32) -> Option<Vec<Kind>> {
    let body = format!("{HEAD}{}", body.replace(';', "\n"));
    let mut device = Device::gfx(&assemble(&kernel(&body, 4096))?);
    let (a, b) = (device.upload(&[1_u32; 64], "in"), device.memory.allocate(256, "out"));
    let report = device.run("k", blocks, threads, Params::default().ptr(a).ptr(b));
    report.findings.iter().for_each(|f| println!("{f}"));
    Some(kinds(&report))
}

/// The first body has the fault, the second does not.
macro_rules! plant {
    ($name:ident, $kind:ident, $blocks:literal x $threads:literal, $wrong:expr, $right:expr) => {
        #[test]
        fn $name() {
            let Some(wrong) = found($wrong, $blocks, $threads) else { return };
            assert!(wrong.contains(&Kind::$kind), "not found: {wrong:?}");
            assert_eq!(found($right, $blocks, $threads), Some(vec![]), "the repaired kernel");
        }
    };
}

// Bounds and alignment.
plant!(read_beyond_the_end, ReadOutOfBounds, 1 x 65, "global_load_dword v5, v1, s[4:5]", "global_load_dword v5, v4, s[4:5]");
plant!(read_over_the_end, ReadOutOfBounds, 1 x 64, "global_load_dwordx2 v[6:7], v1, s[4:5]", "global_load_dword v6, v1, s[4:5]");
plant!(write_beyond_the_end, WriteOutOfBounds, 1 x 65, "global_store_dword v1, v3, s[6:7]", "v_cmp_gt_u32_e32 vcc, 64, v0; s_and_saveexec_b64 s[8:9], vcc; global_store_dword v1, v3, s[6:7]");
plant!(write_before_the_start, WriteOutOfBounds, 1 x 1, "global_store_dword v1, v3, s[6:7] offset:-4", "global_store_dword v1, v3, s[6:7]");
plant!(scalar_read_beyond_the_end, ReadOutOfBounds, 1 x 1, "s_load_dwordx2 s[8:9], s[4:5], 0xfc", "s_load_dwordx2 s[8:9], s[4:5], 0xf8");
plant!(buffer_longer_than_its_memory, ReadOutOfBounds, 1 x 65, "s_mov_b32 s6, 0x200; s_mov_b32 s7, 0x27000; buffer_load_dword v5, v1, s[4:7], 0 offen", "s_mov_b32 s6, 0x100; s_mov_b32 s7, 0x27000; buffer_load_dword v5, v1, s[4:7], 0 offen");
plant!(lds_beyond_the_end, ReadOutOfBounds, 1 x 1, "v_mov_b32_e32 v5, 0x1000; ds_read_b32 v6, v5", "v_mov_b32_e32 v5, 0xffc; ds_read_b32 v6, v5");
plant!(lds_write_beyond_the_end, WriteOutOfBounds, 1 x 1, "ds_write_b32 v1, v3 offset:4096", "ds_write_b32 v1, v3 offset:4092");
plant!(misaligned_load, Misaligned, 1 x 1, "global_load_dword v5, v1, s[4:5] offset:2", "global_load_ushort v5, v1, s[4:5] offset:2");
plant!(misaligned_store, Misaligned, 1 x 1, "global_store_short v1, v3, s[6:7] offset:1", "global_store_byte v1, v3, s[6:7] offset:1");
plant!(misaligned_lds, Misaligned, 1 x 1, "ds_write_b64 v1, v[2:3] offset:2", "ds_write_b64 v1, v[2:3] offset:4");
plant!(arguments_are_written, WriteToConstant, 1 x 1, "global_store_dword v1, v3, s[0:1]", "global_store_dword v1, v3, s[6:7]");

// Undefined values.
plant!(undefined_store, UndefinedStore, 1 x 64, "global_store_dword v1, v30, s[6:7]", "global_store_dword v1, v3, s[6:7]");
plant!(undefined_store_of_a_sum, UndefinedStore, 1 x 64, "v_add_u32_e32 v5, v30, v3; global_store_dword v1, v5, s[6:7]", "v_add_u32_e32 v5, v2, v3; global_store_dword v1, v5, s[6:7]");
plant!(undefined_half, UndefinedStore, 1 x 64, "v_and_b32_e32 v5, 0xff0000, v30; global_store_dword v1, v5, s[6:7]", "v_and_b32_e32 v5, 0xff0000, v30; global_store_short v1, v5, s[6:7]");
plant!(undefined_memory, UndefinedStore, 1 x 32, "global_load_dword v5, v1, s[6:7]; s_waitcnt vmcnt(0); global_store_dword v1, v5, s[6:7] offset:128", "global_load_dword v5, v1, s[4:5]; s_waitcnt vmcnt(0); global_store_dword v1, v5, s[6:7] offset:128");
plant!(undefined_lds, UndefinedStore, 1 x 64, "ds_read_b32 v5, v1; s_waitcnt lgkmcnt(0); global_store_dword v1, v5, s[6:7]", "ds_write_b32 v1, v3; ds_read_b32 v5, v1; s_waitcnt lgkmcnt(0); global_store_dword v1, v5, s[6:7]");
plant!(undefined_address, UndefinedAddress, 1 x 1, "global_load_dword v5, v30, s[4:5]", "global_load_dword v5, v1, s[4:5]");
plant!(undefined_scalar_address, UndefinedAddress, 1 x 1, "s_load_dword s8, s[20:21], 0x0", "s_load_dword s8, s[4:5], 0x0");
plant!(undefined_lds_address, UndefinedAddress, 1 x 1, "ds_write_b32 v30, v3", "ds_write_b32 v1, v3");
plant!(undefined_branch_on_scc, UndefinedBranch, 1 x 1, "s_cmp_eq_u32 s20, 0; s_cbranch_scc1 .La; .La:", "s_cmp_eq_u32 s4, 0; s_cbranch_scc1 .La; .La:");
plant!(undefined_branch_on_vcc, UndefinedBranch, 1 x 1, "v_cmp_eq_u32_e32 vcc, 3, v30; s_cbranch_vccz .La; .La:", "v_cmp_eq_u32_e32 vcc, 3, v2; s_cbranch_vccz .La; .La:");
plant!(undefined_exec, UndefinedBranch, 1 x 1, "v_cmp_eq_u32_e32 vcc, 3, v30; s_and_saveexec_b64 s[8:9], vcc", "v_cmp_eq_u32_e32 vcc, 3, v2; s_and_saveexec_b64 s[8:9], vcc");
plant!(undefined_matrix_factor, UndefinedStore, 1 x 64, "v_mov_b32_e32 v6, 0; v_mov_b32_e32 v7, 0; v_mfma_f32_16x16x16f16 v[8:11], v[30:31], v[6:7], 0; global_store_dword v1, v8, s[6:7]", "v_mov_b32_e32 v6, 0; v_mov_b32_e32 v7, 0; v_mfma_f32_16x16x16f16 v[8:11], v[6:7], v[6:7], 0; global_store_dword v1, v8, s[6:7]");

// Waits.
plant!(load_not_waited_for, MissingWait, 1 x 64, "global_load_dword v5, v4, s[4:5]; v_add_u32_e32 v5, v5, v3", "global_load_dword v5, v4, s[4:5]; s_waitcnt vmcnt(0); v_add_u32_e32 v5, v5, v3");
plant!(load_waited_for_by_the_wrong_counter, MissingWait, 1 x 64, "global_load_dword v5, v4, s[4:5]; s_waitcnt lgkmcnt(0); v_add_u32_e32 v5, v5, v3", "global_load_dword v5, v4, s[4:5]; s_waitcnt vmcnt(0); v_add_u32_e32 v5, v5, v3");
plant!(wait_one_short, MissingWait, 1 x 64, "global_load_dword v5, v4, s[4:5]; global_load_dword v6, v4, s[4:5]; s_waitcnt vmcnt(1); v_add_u32_e32 v5, v6, v3", "global_load_dword v5, v4, s[4:5]; global_load_dword v6, v4, s[4:5]; s_waitcnt vmcnt(1); v_add_u32_e32 v5, v5, v3");
plant!(stores_count_too, MissingWait, 1 x 64, "global_store_dword v4, v3, s[6:7]; global_load_dword v6, v4, s[4:5]; s_waitcnt vmcnt(1); v_add_u32_e32 v5, v6, v3", "global_load_dword v6, v4, s[4:5]; global_store_dword v4, v3, s[6:7]; s_waitcnt vmcnt(1); v_add_u32_e32 v5, v6, v3");
plant!(register_overwritten_while_loaded, MissingWait, 1 x 64, "global_load_dword v5, v4, s[4:5]; v_mov_b32_e32 v5, 0", "global_load_dword v5, v4, s[4:5]; s_waitcnt vmcnt(0); v_mov_b32_e32 v5, 0");
plant!(lds_read_not_waited_for, MissingWait, 1 x 64, "ds_write_b32 v1, v3; ds_read_b32 v5, v1; v_add_u32_e32 v5, v5, v3", "ds_write_b32 v1, v3; ds_read_b32 v5, v1; s_waitcnt lgkmcnt(0); v_add_u32_e32 v5, v5, v3");
plant!(lds_reads_waited_for_one_short, MissingWait, 1 x 64, "ds_write_b32 v1, v3; ds_read_b32 v5, v1; ds_read_b32 v6, v1; s_waitcnt lgkmcnt(1); v_add_u32_e32 v5, v6, v3", "ds_write_b32 v1, v3; ds_read_b32 v5, v1; ds_read_b32 v6, v1; s_waitcnt lgkmcnt(1); v_add_u32_e32 v5, v5, v3");
plant!(scalar_load_not_waited_for, MissingWait, 1 x 1, "s_load_dword s8, s[4:5], 0x0; s_add_u32 s8, s8, 1", "s_load_dword s8, s[4:5], 0x0; s_waitcnt lgkmcnt(0); s_add_u32 s8, s8, 1");
plant!(scalar_loads_come_in_any_order, MissingWait, 1 x 1, "s_load_dword s8, s[4:5], 0x0; s_load_dword s9, s[4:5], 0x0; s_waitcnt lgkmcnt(1); s_add_u32 s8, s8, 1", "s_load_dword s8, s[4:5], 0x0; s_load_dword s9, s[4:5], 0x0; s_waitcnt lgkmcnt(0); s_add_u32 s8, s8, 1");
plant!(scalar_loads_among_lds_reads, MissingWait, 1 x 64, "ds_write_b32 v1, v3; s_load_dword s8, s[4:5], 0x0; ds_read_b32 v5, v1; s_waitcnt lgkmcnt(1); v_mov_b32_e32 v6, s8", "ds_write_b32 v1, v3; s_load_dword s8, s[4:5], 0x0; ds_read_b32 v5, v1; s_waitcnt lgkmcnt(0); v_mov_b32_e32 v6, s8");
plant!(permutation_not_waited_for, MissingWait, 1 x 64, "ds_bpermute_b32 v5, v1, v3; v_add_u32_e32 v5, v5, v3", "ds_bpermute_b32 v5, v1, v3; s_waitcnt lgkmcnt(0); v_add_u32_e32 v5, v5, v3");
plant!(flat_loads_need_both, MissingWait, 1 x 1, "v_mov_b32_e32 v6, s4; v_mov_b32_e32 v7, s5; flat_load_dword v5, v[6:7]; s_waitcnt vmcnt(0); v_add_u32_e32 v5, v5, v3", "v_mov_b32_e32 v6, s4; v_mov_b32_e32 v7, s5; flat_load_dword v5, v[6:7]; s_waitcnt vmcnt(0) lgkmcnt(0); v_add_u32_e32 v5, v5, v3");

// LDS between barriers.
const OTHER: &str = "v_xor_b32_e32 v5, 0x100, v1;";
fn with(rest: &str) -> String {
    format!("{OTHER}{rest}")
}
plant!(race_read_after_write, SharedRace, 1 x 128, &with("ds_write_b32 v1, v3; s_waitcnt lgkmcnt(0); ds_read_b32 v6, v5"), &with("ds_write_b32 v1, v3; s_waitcnt lgkmcnt(0); s_barrier; ds_read_b32 v6, v5"));
plant!(race_write_after_read, SharedRace, 1 x 128, &with("ds_read_b32 v6, v5; s_waitcnt lgkmcnt(0); ds_write_b32 v1, v3"), &with("ds_read_b32 v6, v5; s_waitcnt lgkmcnt(0); s_barrier; ds_write_b32 v1, v3"));
plant!(race_write_after_write, SharedRace, 1 x 128, "v_mov_b32_e32 v5, 0; ds_write_b32 v5, v3", "ds_write_b32 v1, v3");
plant!(race_of_atomic_and_plain, SharedRace, 1 x 128, "v_mov_b32_e32 v5, 0; ds_add_u32 v5, v3; s_waitcnt lgkmcnt(0); ds_read_b32 v6, v5", "v_mov_b32_e32 v5, 0; ds_add_u32 v5, v3; s_waitcnt lgkmcnt(0); s_barrier; ds_read_b32 v6, v5");
plant!(write_not_waited_for_at_the_barrier, SharedRace, 1 x 128, &with("ds_write_b32 v1, v3; s_barrier; ds_read_b32 v6, v5"), &with("ds_write_b32 v1, v3; s_waitcnt lgkmcnt(0); s_barrier; ds_read_b32 v6, v5"));
plant!(read_not_waited_for_at_the_barrier, SharedRace, 1 x 128, &with("ds_read_b32 v6, v5; s_barrier; ds_write_b32 v1, v3"), &with("ds_read_b32 v6, v5; s_waitcnt lgkmcnt(0); s_barrier; ds_write_b32 v1, v3"));
plant!(last_write_not_waited_for, SharedRace, 1 x 128, &with("ds_write_b32 v1, v3 offset:512; ds_write_b32 v1, v3; s_waitcnt lgkmcnt(1); s_barrier; ds_read_b32 v6, v5"), &with("ds_write_b32 v1, v3; ds_write_b32 v1, v3 offset:512; s_waitcnt lgkmcnt(1); s_barrier; ds_read_b32 v6, v5"));
plant!(lanes_of_a_wave_are_in_order, SharedRace, 1 x 128, "v_xor_b32_e32 v5, 0x180, v1; ds_write_b32 v1, v3; ds_read_b32 v6, v5", "v_xor_b32_e32 v5, 0x80, v1; ds_write_b32 v1, v3; ds_read_b32 v6, v5");
plant!(barrier_missed_by_a_wave, BarrierNotReached, 1 x 128, "v_readfirstlane_b32 s8, v0; s_cmp_lg_u32 s8, 0; s_cbranch_scc1 .La; s_barrier; .La:", "v_readfirstlane_b32 s8, v0; s_cmp_lg_u32 s8, 0; s_cbranch_scc1 .La; .La: ; s_barrier");

// Blocks.
plant!(blocks_write_the_same, GlobalRace, 2 x 32, "global_store_dword v1, v3, s[6:7]", "v_lshl_add_u32 v5, s2, 7, v1; global_store_dword v5, v3, s[6:7]");
plant!(block_reads_what_another_writes, GlobalRace, 2 x 1, "s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; global_load_dword v5, v1, s[6:7]; s_branch .Lb; .La:; global_store_dword v1, v3, s[6:7]; .Lb:", "s_cmp_eq_u32 s2, 0; s_cbranch_scc1 .La; global_load_dword v5, v1, s[6:7] offset:4; s_branch .Lb; .La:; global_store_dword v1, v3, s[6:7]; .Lb:");
plant!(sum_over_blocks_without_atomics, GlobalRace, 2 x 1, "global_load_dword v5, v1, s[4:5]; s_waitcnt vmcnt(0); v_add_u32_e32 v5, 1, v5; global_store_dword v1, v5, s[4:5]", "global_atomic_add v1, v3, s[4:5] offset:64");

// Threads of a block in global memory: waves of 64.
plant!(global_read_after_write, GlobalRace, 1 x 128, "v_xor_b32_e32 v5, 0x80, v1; v_and_b32_e32 v6, 0x7c, v1; v_lshrrev_b32_e32 v7, 1, v1; v_and_b32_e32 v7, 0x80, v7; v_or_b32_e32 v6, v6, v7; v_xor_b32_e32 v7, 0x80, v6; v_cmp_gt_u32_e32 vcc, 32, v0; global_store_dword v6, v3, s[6:7]; s_waitcnt vmcnt(0); global_load_dword v8, v7, s[6:7]", "v_and_b32_e32 v6, 0xfc, v1; v_cmp_gt_u32_e32 vcc, 64, v0; s_and_saveexec_b64 s[8:9], vcc; global_store_dword v6, v3, s[6:7]; s_waitcnt vmcnt(0); s_or_b64 exec, exec, s[8:9]; s_barrier; global_load_dword v8, v6, s[6:7]");
plant!(global_write_after_write, GlobalRace, 1 x 128, "global_store_dword v4, v3, s[6:7]", "v_cmp_gt_u32_e32 vcc, 64, v0; s_and_saveexec_b64 s[8:9], vcc; global_store_dword v4, v3, s[6:7]");

// The first wave stores, or loads; the second does the other thing after the barrier.
fn waves(first: &str, second: &str) -> String {
    format!(
        "v_and_b32_e32 v6, 0xfc, v1; v_readfirstlane_b32 s8, v0; s_cmp_lg_u32 s8, 0; s_cbranch_scc1 .Lsecond;
         {first}; s_barrier; s_branch .Lend1; .Lsecond:; s_barrier; {second}; .Lend1:"
    )
}
plant!(global_store_not_waited_for_at_the_barrier, GlobalRace, 1 x 128, &waves("global_store_dword v6, v3, s[6:7]; s_waitcnt lgkmcnt(0)", "global_load_dword v8, v6, s[6:7]"), &waves("global_store_dword v6, v3, s[6:7]; s_waitcnt vmcnt(0)", "global_load_dword v8, v6, s[6:7]"));
plant!(global_load_not_waited_for_at_the_barrier, GlobalRace, 1 x 128, &waves("global_load_dword v8, v6, s[4:5]", "global_store_dword v6, v3, s[4:5]"), &waves("global_load_dword v8, v6, s[4:5]; s_waitcnt vmcnt(0)", "global_store_dword v6, v3, s[4:5]"));
plant!(last_global_store_not_waited_for, GlobalRace, 1 x 128, &waves("global_load_dword v8, v6, s[4:5]; global_store_dword v6, v3, s[6:7]; s_waitcnt vmcnt(1)", "global_load_dword v8, v6, s[6:7]"), &waves("global_store_dword v6, v3, s[6:7]; global_load_dword v8, v6, s[4:5]; s_waitcnt vmcnt(1)", "global_load_dword v8, v6, s[6:7]"));

// The last block reads what the others have written: see the same tests of PTX. One wave a block.
fn last_block(release: &str, acquire: &str) -> String {
    format!(
        "v_lshl_add_u32 v5, s2, 7, v1; global_store_dword v5, v3, s[6:7]; {release};
         v_mov_b32_e32 v6, 0; v_mov_b32_e32 v7, 1; s_mov_b64 s[8:9], exec; s_mov_b64 exec, 1;
         global_atomic_add v8, v6, v7, s[4:5] offset:252 glc; s_waitcnt vmcnt(0); {acquire}; s_mov_b64 exec, s[8:9];
         v_readfirstlane_b32 s10, v8; s_cmp_eq_u32 s10, 1; s_cbranch_scc1 .Lend1;
         global_load_dword v9, v1, s[6:7]; global_load_dword v9, v1, s[6:7] offset:128; .Lend1:"
    )
}
plant!(last_block_whose_stores_are_not_waited_for, GlobalRace, 2 x 32, &last_block("", "buffer_wbinvl1_vol"), &last_block("s_waitcnt vmcnt(0)", "buffer_wbinvl1_vol"));
plant!(last_block_that_does_not_read_anew, GlobalRace, 2 x 32, &last_block("s_waitcnt vmcnt(0)", ""), &last_block("s_waitcnt vmcnt(0) lgkmcnt(0)", "buffer_invl2; buffer_wbinvl1_vol"));

// Block 0 stores a word and then a flag, block 1 loads the flag and then the word: as clang 15 and 19
// compile __hip_atomic_store(RELEASE, AGENT) and __hip_atomic_load(ACQUIRE, AGENT).
fn flag(release: &str, acquire: &str) -> String {
    format!(
        "v_mov_b32_e32 v5, 0; s_cmp_eq_u32 s2, 1; s_cbranch_scc1 .Lother;
         global_store_dword v5, v3, s[6:7]; {release}; global_store_dword v5, v3, s[4:5] offset:128; s_branch .Lend1;
         .Lother:; {acquire}; v_readfirstlane_b32 s10, v8; s_cmp_lg_u32 s10, 7; s_cbranch_scc1 .Lend1;
         global_load_dword v9, v5, s[6:7]; .Lend1:"
    )
}
const ACQUIRE: &str =
    "global_load_dword v8, v5, s[4:5] offset:128 glc; s_waitcnt vmcnt(0); buffer_wbinvl1_vol";
plant!(flag_stored_before_its_data_is, GlobalRace, 2 x 1, &flag("", ACQUIRE), &flag("s_waitcnt vmcnt(0)", ACQUIRE));
plant!(flag_loaded_from_the_cache, GlobalRace, 2 x 1, &flag("s_waitcnt vmcnt(0)", "global_load_dword v8, v5, s[4:5] offset:128; s_waitcnt vmcnt(0); buffer_wbinvl1_vol"), &flag("s_waitcnt vmcnt(0)", ACQUIRE));
plant!(data_loaded_from_the_cache, GlobalRace, 2 x 1, &flag("s_waitcnt vmcnt(0)", "global_load_dword v8, v5, s[4:5] offset:128 glc; s_waitcnt vmcnt(0)"), &flag("buffer_wbl2; s_waitcnt vmcnt(0)", "global_load_dword v8, v5, s[4:5] offset:128 glc; s_waitcnt vmcnt(0); buffer_invl2; buffer_wbinvl1_vol"));
plant!(cache_emptied_before_the_flag_is_there, GlobalRace, 2 x 1, &flag("s_waitcnt vmcnt(0)", "global_load_dword v8, v5, s[4:5] offset:128 glc; buffer_wbinvl1_vol; s_waitcnt vmcnt(0)"), &flag("s_waitcnt vmcnt(0)", ACQUIRE));
plant!(only_the_second_cache_is_emptied, GlobalRace, 2 x 1, &flag("s_waitcnt vmcnt(0)", "global_load_dword v8, v5, s[4:5] offset:128 glc; s_waitcnt vmcnt(0); buffer_invl2"), &flag("s_waitcnt vmcnt(0)", ACQUIRE));

// Blocks add to a word one after the other: a lock taken by compare-and-swap, given back by a store.
fn locked(release: &str, acquire: &str) -> String {
    format!(
        "v_mov_b32_e32 v5, 0; v_mov_b32_e32 v10, 1; v_mov_b32_e32 v11, 1;
         global_atomic_cmpswap v8, v5, v[10:11], s[4:5] offset:128 glc; s_waitcnt vmcnt(0); {acquire};
         global_load_dword v9, v5, s[4:5] offset:132; s_waitcnt vmcnt(0); v_add_u32_e32 v9, 1, v9;
         global_store_dword v5, v9, s[4:5] offset:132; {release}; global_store_dword v5, v10, s[4:5] offset:128"
    )
}
plant!(lock_given_back_too_early, GlobalRace, 2 x 1, &locked("", "buffer_wbinvl1_vol"), &locked("s_waitcnt vmcnt(0)", "buffer_wbinvl1_vol"));
plant!(lock_taken_with_old_data, GlobalRace, 2 x 1, &locked("s_waitcnt vmcnt(0)", ""), &locked("s_waitcnt vmcnt(0)", "buffer_wbinvl1_vol"));

#[test]
fn freed_memory_is_not_used() {
    let Some(object) = assemble(&kernel(&format!("{HEAD}s_endpgm"), 0)) else { return };
    let mut device = Device::gfx(&object);
    let (a, b) = (device.upload(&[1_u32; 64], "in"), device.memory.allocate(256, "out"));
    device.memory.free(a).unwrap();
    let report = device.run("k", 1, 64, Params::default().ptr(a).ptr(b));
    assert_eq!(kinds(&report), [Kind::UseAfterFree]);
    let text = report.findings[0].to_string();
    assert!(text.contains("which was freed") && text.contains("(64 times)"), "{text}");
    assert!(text.contains("global_load_dword v2, v4, s[4:5]"), "{text}");
}

#[test]
fn an_endless_loop_is_given_up() {
    let Some(object) = assemble(&kernel(".La: s_branch .La", 0)) else { return };
    let mut memory = GlobalMemory::new();
    let object = CodeObject::parse(&object).unwrap().load(&mut memory).unwrap();
    let checks = halfstep_vgpu::launch::Checks { max_instructions: 1000, ..Default::default() };
    let grid = halfstep_vgpu::launch::Grid { blocks: [1; 3], threads: [1; 3], shared: 0 };
    let program = object.program("k").unwrap();
    let error = halfstep_vgpu::gfx::launch(&program, grid, &[0; 16], &mut memory, checks);
    assert!(error.unwrap_err().to_string().contains("come to an end"));
}

#[test]
fn what_is_not_known_is_an_error_that_names_it() {
    let error = |body: &str| {
        let object = assemble(&kernel(&body.replace(';', "\n"), 0))?;
        let object = CodeObject::parse(&object).and_then(|o| o.load(&mut GlobalMemory::new()));
        Some(object.and_then(|o| o.program("k").map(|_| ())).unwrap_err().to_string())
    };
    for (body, named) in [
        (".long 0xbfff0000", "bfff0000"),
        (".long 0x7e00ff00", "Vop1 opcode 0x7f"),
        (".long 0xd37f0000, 0", "d37f0000"),
        (".long 0xf0000000, 0", "f0000000"),
        ("v_screen_partition_4se_b32_e32 v1, v2", "v_screen_partition_4se_b32"),
        ("s_sendmsg sendmsg(MSG_INTERRUPT)", "s_sendmsg"),
        ("s_getreg_b32 s4, hwreg(HW_REG_HW_ID)", "HW_REG_HW_ID"),
        ("v_mfma_f32_32x32x1f32 v[0:31], v2, v4, v[0:31] cbsz:2", "cbsz:2"),
        ("v_mfma_f32_32x32x1f32 v[0:31], v2, v4, v[0:31] cbsz:1 abid:2", "abid:2"),
        ("v_mfma_f32_32x32x2f32 v[0:15], v2, v4, v[0:15] cbsz:1", "cbsz:1"),
        ("v_mfma_f32_32x32x1f32 v[0:31], v2, v4, v[0:31] blgp:1", "blgp:1"),
        ("v_mov_b32_e32 v200, 0", "v200"),
        ("ds_gws_barrier v0 gds", "DS opcode 0x9d"),
        ("v_mad_u32_u24 v1, v2, v3, v4 clamp", "clamp"),
        ("v_qsad_pk_u16_u8 v[2:3], v[4:5], v6, v[8:9]", "v_qsad_pk_u16_u8"),
    ] {
        let Some(error) = error(body) else { return };
        assert!(error.contains(named), "{body}: {error}");
    }
}

#[test]
fn relocations_and_targets_that_are_not_known() {
    let text = kernel("", 0);
    let parse = |object: &[u8]| {
        let object = CodeObject::parse(object).and_then(|o| o.load(&mut GlobalMemory::new()));
        object.map(|_| ()).unwrap_err().to_string()
    };
    let Some(object) = assemble(&format!("{text}\n.data\n.globl y\ny: .quad k\n")) else { return };
    // The relocation of y becomes one that nobody knows.
    let mut patched = object.clone();
    let at = (0..object.len() - 24).step_by(8).find(|at| {
        let word = |n: usize| u64::from_le_bytes(object[at + n..at + n + 8].try_into().unwrap());
        matches!(word(8) & 0xffff_ffff, 3 | 13) && word(0) > 0x1000 && word(0) < 0x10000
    });
    let at = at.expect("a relocation");
    patched[at + 8] = 77;
    assert!(parse(&patched).contains("relocation 77"), "{}", parse(&patched));
    let mut other = object.clone();
    other[48] = 0x42;
    assert!(parse(&other).contains("not code for gfx90a"));
    assert!(parse(b"\x7fELF").contains("not an ELF"));
    assert!(parse(b"CCOB").contains("compressed"));
}
