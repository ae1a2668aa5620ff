//! Planted faults: one small kernel each, and the one finding that it must give. Every kernel is
//! also run with the fault taken out, and must be clean.

mod common;

use common::*;
use halfstep_vgpu::finding::Kind;
use halfstep_vgpu::launch::Grid;

/// Registers, the thread's index in %t, and the kernel's two pointers, to 64 words each.
const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n\
.visible .entry k(.param .u64 in, .param .u64 out)\n{\n\
.reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .f32 %f<8>; .reg .b64 %d<16>; .reg .b32 %t, %b;\n\
.shared .align 16 .b8 s[1024];\n\
ld.param.u64 %d0, [in]; ld.param.u64 %d1, [out]; mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x;\n\
mul.wide.u32 %d2, %t, 4; add.s64 %d3, %d0, %d2; add.s64 %d4, %d1, %d2; shl.b32 %r0, %t, 2; mov.u32 %r1, 7;\n";

fn run(body: &str, blocks: u32, threads: u32) -> Vec<Kind> {
    let mut device = Device::new(&format!("{HEAD}{body}\nret;\n}}\n"));
    let input: Vec<u32> = (0..64).collect();
    let (a, b) = (device.upload(&input, "in"), device.memory.allocate(256, "out"));
    let grid = Grid { blocks: [blocks, 1, 1], threads: [threads, 1, 1], shared: 0 };
    let report = device.launch("k", grid, Params::default().ptr(a).ptr(b));
    report.findings.iter().for_each(|finding| println!("{finding}"));
    // One fault may show at several instructions.
    let mut kinds = kinds(&report);
    kinds.dedup();
    kinds
}

/// One test: the faulty body gives exactly the finding, the right one none.
macro_rules! plant {
    ($name:ident, $kind:ident, $blocks:literal x $threads:literal, $faulty:expr, $right:expr) => {
        #[test]
        fn $name() {
            assert_eq!(run($faulty, $blocks, $threads), [Kind::$kind]);
            assert_eq!(run($right, $blocks, $threads), []);
        }
    };
}

// Bounds, lifetime, alignment.
plant!(read_over_the_end, ReadOutOfBounds, 1 x 64, "ld.global.u32 %r2, [%d3+4];", "ld.global.u32 %r2, [%d3];");
plant!(read_before_the_start, ReadOutOfBounds, 1 x 32, "ld.global.u32 %r2, [%d3+-4];", "ld.global.u32 %r2, [%d3+4];");
plant!(read_of_nothing, ReadOutOfBounds, 1 x 32, "mov.u64 %d5, 0; ld.global.u32 %r2, [%d5];", "mov.u64 %d5, %d0; ld.global.u32 %r2, [%d5];");
plant!(vector_read_half_over_the_end, ReadOutOfBounds, 1 x 1, "ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%d0+256];", "ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%d0+240];");
plant!(write_over_the_end, WriteOutOfBounds, 1 x 64, "st.global.u32 [%d4+4], %r1;", "st.global.u32 [%d4], %r1;");
plant!(generic_write_out_of_bounds, WriteOutOfBounds, 1 x 1, "st.u32 [%d1+256], %r1;", "st.u32 [%d1+252], %r1;");
plant!(atomic_out_of_bounds, WriteOutOfBounds, 1 x 1, "red.global.add.u32 [%d0+256], %r1;", "red.global.add.u32 [%d0+252], %r1;");
plant!(shared_read_over_the_end, ReadOutOfBounds, 1 x 1, "mov.u32 %r2, s; ld.shared.u32 %r3, [%r2+1024];", "mov.u32 %r2, s; ld.shared.u32 %r3, [%r2+1020];");
plant!(shared_write_over_the_end, WriteOutOfBounds, 1 x 1, "mov.u32 %r2, s; st.shared.u32 [%r2+1024], %r1;", "mov.u32 %r2, s; st.shared.u32 [%r2+1020], %r1;");
plant!(misaligned_read, Misaligned, 1 x 1, "ld.global.u32 %r2, [%d0+2];", "ld.global.u16 %h0, [%d0+2];");
plant!(misaligned_vector_write, Misaligned, 1 x 1, "st.global.v4.u32 [%d1+8], {%r1,%r1,%r1,%r1};", "st.global.v2.u32 [%d1+8], {%r1,%r1};");
plant!(misaligned_shared, Misaligned, 1 x 1, "st.shared.v4.u32 [s+8], {%r1,%r1,%r1,%r1};", "st.shared.v4.u32 [s+16], {%r1,%r1,%r1,%r1};");
plant!(write_to_parameters, WriteToConstant, 1 x 1, "st.param.u32 [in], %r1;", "");

// Undefined values.
plant!(undefined_register_stored, UndefinedStore, 1 x 32, "st.global.u32 [%d4], %r9;", "mov.u32 %r9, 1; st.global.u32 [%d4], %r9;");
plant!(undefined_shared_memory_stored, UndefinedStore, 1 x 32, "ld.shared.u32 %r2, [s]; st.global.u32 [%d4], %r2;", "ld.shared.u32 %r2, [s];");
plant!(undefined_allocation_read, UndefinedStore, 1 x 1, "ld.global.u32 %r2, [%d1]; st.global.u32 [%d1+4], %r2;", "ld.global.u32 %r2, [%d0]; st.global.u32 [%d1+4], %r2;");
plant!(undefined_half_of_a_pair, UndefinedStore, 1 x 1, "mov.u16 %h0, 3; mov.b32 %r2, {%h0,%h1}; st.global.u32 [%d1], %r2;", "mov.u16 %h0, 3; mov.b32 %r2, {%h0,%h1}; st.global.u16 [%d1], %r2;");
plant!(undefined_through_arithmetic, UndefinedStore, 1 x 1, "add.f32 %f1, %f0, %f0; mul.f32 %f2, %f1, 0f00000000; st.global.f32 [%d1], %f2;", "and.b32 %r2, %r9, 0; st.global.u32 [%d1], %r2;");
plant!(undefined_address, UndefinedAddress, 1 x 1, "ld.global.u32 %r2, [%d9];", "add.s64 %d10, %d9, 4;");
plant!(undefined_predicate, UndefinedBranch, 1 x 1, "setp.eq.s32 %p0, %r9, 0; @%p0 bra A; A:", "setp.eq.s32 %p0, %r9, 0;");
plant!(undefined_guard, UndefinedBranch, 1 x 1, "@%p1 mov.u32 %r2, 1;", "mov.pred %p1, 1; @%p1 mov.u32 %r2, 1;");
plant!(undefined_sum_by_atomic, UndefinedStore, 1 x 1, "red.global.add.u32 [%d0], %r9;", "red.global.add.u32 [%d0], %r1;");

// Shared memory between barriers.
const NEIGHBOUR: &str = "mov.u32 %r5, s; add.s32 %r5, %r5, %r0; xor.b32 %r6, %r0, 128; mov.u32 %r7, s; add.s32 %r7, %r7, %r6;";
fn with(neighbour: &str, rest: &str) -> String {
    format!("{neighbour}{rest}")
}
plant!(race_read_after_write, SharedRace, 1 x 64, &with(NEIGHBOUR, "st.shared.u32 [%r5], %r1; ld.shared.u32 %r8, [%r7];"), &with(NEIGHBOUR, "st.shared.u32 [%r5], %r1; bar.sync 0; ld.shared.u32 %r8, [%r7];"));
plant!(race_write_after_read, SharedRace, 1 x 64, &with(NEIGHBOUR, "ld.shared.u32 %r8, [%r7]; st.shared.u32 [%r5], %r1;"), &with(NEIGHBOUR, "ld.shared.u32 %r8, [%r7]; bar.sync 0; st.shared.u32 [%r5], %r1;"));
plant!(race_write_after_write, SharedRace, 1 x 64, "st.shared.u32 [s], %r1;", "setp.eq.u32 %p0, %t, 5; @%p0 st.shared.u32 [s], %r1;");
plant!(race_with_one_of_many_readers, SharedRace, 1 x 64, "ld.shared.u32 %r2, [s]; setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [s], %r1;", "ld.shared.u32 %r2, [s]; bar.sync 0; setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [s], %r1;");
plant!(race_inside_a_warp, SharedRace, 1 x 32, "mov.u32 %r5, s; add.s32 %r5, %r5, %r0; st.shared.u32 [%r5], %r1; ld.shared.u32 %r2, [s];", "mov.u32 %r5, s; add.s32 %r5, %r5, %r0; st.shared.u32 [%r5], %r1; bar.warp.sync -1; ld.shared.u32 %r2, [s];");
// Lanes that store the same at once agree on what is there then; others do not.
plant!(lanes_store_different_values, SharedRace, 1 x 32, "st.shared.u32 [s], %t;", "st.shared.u32 [s], %r1;");
plant!(race_of_atomic_and_plain, SharedRace, 1 x 64, "setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [s], 0; red.shared.add.u32 [s], 1;", "setp.eq.u32 %p0, %t, 0; @%p0 st.shared.u32 [s], 0; bar.sync 0; red.shared.add.u32 [s], 1;");
plant!(barrier_of_others_does_not_order, SharedRace, 1 x 96, &with(NEIGHBOUR, "st.shared.u32 [%r5], %r1; setp.ge.u32 %p0, %t, 64; @%p0 bra A; bar.sync 1, 64; bra B; A: ld.shared.u32 %r8, [s]; B:"), &with(NEIGHBOUR, "st.shared.u32 [%r5], %r1; setp.ge.u32 %p0, %t, 64; @%p0 bra A; bar.sync 1, 64; ld.shared.u32 %r8, [%r7]; A:"));

// Barriers.
plant!(barrier_in_a_divergent_branch, DivergentBarrier, 1 x 32, "setp.lt.u32 %p0, %t, 16; @%p0 bra A; bar.sync 0; A:", "setp.lt.u32 %p0, %t, 32; @!%p0 bra A; bar.sync 0; A:");
plant!(barrier_missed_by_a_warp, BarrierNotReached, 1 x 64, "setp.ge.u32 %p0, %t, 32; @%p0 exit; bar.sync 0;", "bar.sync 0; setp.ge.u32 %p0, %t, 32; @%p0 exit;");
plant!(barrier_with_too_few, BarrierNotReached, 1 x 64, "bar.sync 1, 96;", "bar.sync 1, 64;");

// Asynchronous copies.
const COPY: &str = "mov.u32 %r5, s; shl.b32 %r6, %t, 4; add.s32 %r5, %r5, %r6; cvt.u64.u32 %d5, %r6; and.b64 %d5, %d5, 127; add.s64 %d6, %d0, %d5; cp.async.cg.shared.global [%r5], [%d6], 16;";
plant!(copy_not_waited_for, MissingWait, 1 x 8, &with(COPY, "cp.async.commit_group; ld.shared.u32 %r2, [%r5];"), &with(COPY, "cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r2, [%r5];"));
plant!(copy_not_committed, MissingWait, 1 x 8, &with(COPY, "cp.async.wait_group 0; ld.shared.u32 %r2, [%r5];"), &with(COPY, "cp.async.wait_all; ld.shared.u32 %r2, [%r5];"));
plant!(wait_for_an_older_group, MissingWait, 1 x 8, &with(COPY, "cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r2, [%r5];"), &with(COPY, "cp.async.commit_group; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r2, [%r5];"));
plant!(copy_seen_by_others_without_a_barrier, SharedRace, 1 x 64, &with(COPY, "cp.async.wait_all; ld.shared.u32 %r2, [s];"), &with(COPY, "cp.async.wait_all; bar.sync 0; ld.shared.u32 %r2, [s];"));
plant!(copy_over_what_is_read, SharedRace, 1 x 64, &with("ld.shared.u32 %r2, [s]; setp.lt.u32 %p0, %t, 32; @%p0 ret; sub.s32 %t, %t, 32;", COPY), &with("ld.shared.u32 %r2, [s]; bar.sync 0; setp.lt.u32 %p0, %t, 32; @%p0 ret; sub.s32 %t, %t, 32;", COPY));
plant!(copy_misaligned, Misaligned, 1 x 1, "cp.async.cg.shared.global [s], [%d0+8], 16;", "cp.async.ca.shared.global [s], [%d0+8], 8;");

// Blocks.
plant!(blocks_write_the_same, GlobalRace, 2 x 32, "st.global.u32 [%d4], %r1;", "mul.wide.u32 %d5, %b, 128; add.s64 %d4, %d4, %d5; st.global.u32 [%d4], %r1;");
plant!(block_reads_what_another_writes, GlobalRace, 2 x 1, "setp.eq.u32 %p0, %b, 0; @%p0 st.global.u32 [%d0], %r1; @!%p0 ld.global.u32 %r2, [%d0];", "setp.eq.u32 %p0, %b, 0; @%p0 st.global.u32 [%d0], %r1; @!%p0 ld.global.u32 %r2, [%d0+4];");
plant!(block_writes_what_others_read, GlobalRace, 3 x 1, "ld.global.u32 %r2, [%d0]; setp.eq.u32 %p0, %b, 2; @%p0 st.global.u32 [%d0], %r1;", "ld.global.u32 %r2, [%d0]; setp.eq.u32 %p0, %b, 2; @%p0 st.global.u32 [%d0+4], %r1;");
plant!(sum_over_blocks_without_atomics, GlobalRace, 2 x 1, "ld.global.u32 %r2, [%d0]; add.s32 %r2, %r2, 1; st.global.u32 [%d0], %r2;", "red.global.add.u32 [%d0], 1;");

// Threads of a block in global memory.
const OTHER: &str = "xor.b32 %r5, %r0, 128; cvt.u64.u32 %d5, %r5; add.s64 %d6, %d1, %d5;";
plant!(global_read_after_write, GlobalRace, 1 x 64, &with(OTHER, "st.global.u32 [%d4], %r1; ld.global.u32 %r2, [%d6];"), &with(OTHER, "st.global.u32 [%d4], %r1; bar.sync 0; ld.global.u32 %r2, [%d6];"));
plant!(global_write_after_read, GlobalRace, 1 x 64, &with(OTHER, "st.global.u32 [%d4], %r1; bar.sync 0; ld.global.u32 %r2, [%d6]; st.global.u32 [%d4], %r2;"), &with(OTHER, "st.global.u32 [%d4], %r1; bar.sync 0; ld.global.u32 %r2, [%d6]; bar.sync 0; st.global.u32 [%d4], %r2;"));
plant!(global_race_inside_a_warp, GlobalRace, 1 x 32, "st.global.u32 [%d4], %r1; ld.global.u32 %r2, [%d1];", "st.global.u32 [%d4], %r1; bar.warp.sync -1; ld.global.u32 %r2, [%d1];");
plant!(a_fence_is_no_barrier, GlobalRace, 1 x 64, &with(OTHER, "st.global.u32 [%d4], %r1; membar.gl; ld.global.u32 %r2, [%d6];"), &with(OTHER, "st.global.u32 [%d4], %r1; membar.gl; bar.sync 0; ld.global.u32 %r2, [%d6];"));

// A block hands a word over with a flag: its address is in %d0, that of the flag beside it.
plant!(relaxed_flag_orders_nothing, GlobalRace, 2 x 1, &flag("st.relaxed.gpu", "ld.relaxed.gpu"), &flag("st.release.gpu", "ld.acquire.gpu"));
plant!(flag_without_release, GlobalRace, 2 x 1, &flag("st.relaxed.gpu", "ld.acquire.gpu"), &flag("fence.acq_rel.gpu; st.relaxed.gpu", "ld.acquire.gpu"));
plant!(flag_without_acquire, GlobalRace, 2 x 1, &flag("st.release.gpu", "ld.relaxed.gpu"), &flag("st.release.sys", "ld.acquire.sys"));
plant!(plain_flag, GlobalRace, 2 x 1, &flag("st.release.gpu", "ld.weak"), &flag("st.release.gpu", "ld.acquire.gpu"));
plant!(released_to_a_block_only, GlobalRace, 2 x 1, &flag("st.release.cta", "ld.acquire.gpu"), &flag("st.release.gpu", "ld.acquire.gpu"));

fn flag(store: &str, load: &str) -> String {
    format!(
        "setp.eq.u32 %p0, %b, 0; @!%p0 bra READS;\n\
         st.global.u32 [%d0], %r1; {store}.global.u32 [%d0+4], %r1; ret;\n\
         READS: {load}.global.u32 %r2, [%d0+4]; ld.global.u32 %r3, [%d0];"
    )
}

// The last block reads what the others have written: each writes a word, fences, meets, and counts
// itself in `in[0]` by one thread, whose count tells the others through shared memory.
fn last_block(release: &str, meet: &str, acquire: &str) -> String {
    format!(
        "mul.wide.u32 %d5, %b, 128; add.s64 %d7, %d4, %d5; st.global.u32 [%d7], %r1; {release} {meet}
         setp.ne.u32 %p0, %t, 0; @%p0 bra A; atom.global.add.u32 %r2, [%d0], 1; {acquire} st.shared.u32 [s], %r2;
         A: bar.sync 0; ld.shared.u32 %r2, [s]; setp.ne.u32 %p1, %r2, 1; @%p1 bra B;
         ld.global.u32 %r3, [%d4]; ld.global.u32 %r4, [%d4+128]; B:"
    )
}
const MEET: &str = "bar.sync 0;";
plant!(last_block_without_a_fence, GlobalRace, 2 x 32, &last_block("", MEET, "membar.gl;"), &last_block("membar.gl;", MEET, "membar.gl;"));
plant!(last_block_with_a_fence_for_the_block_only, GlobalRace, 2 x 32, &last_block("membar.cta;", MEET, "membar.gl;"), &last_block("fence.acq_rel.gpu;", MEET, "fence.acq_rel.gpu;"));
plant!(last_block_that_does_not_fence_before_reading, GlobalRace, 2 x 32, &last_block("membar.gl;", MEET, ""), &last_block("membar.sys;", MEET, "membar.sys;"));

// Exchanges.
plant!(shuffle_from_an_absent_lane, InactiveLane, 1 x 16, "shfl.sync.down.b32 %r2, %r1, 8, 31, 0xffff;", "shfl.sync.bfly.b32 %r2, %r1, 8, 31, 0xffff;");
plant!(shuffle_names_absent_lanes, MaskedLaneAbsent, 1 x 32, "setp.lt.u32 %p0, %t, 16; @!%p0 bra A; shfl.sync.bfly.b32 %r2, %r1, 8, 31, -1; A:", "setp.lt.u32 %p0, %t, 16; @!%p0 bra A; shfl.sync.bfly.b32 %r2, %r1, 8, 31, 0xffff; A:");

#[test]
fn freed_memory_is_not_used() {
    let mut device = Device::new(&format!("{HEAD} ld.global.u32 %r2, [%d0]; ret; }}"));
    let (a, b) = (device.upload(&[1_u32; 64], "in"), device.memory.allocate(256, "out"));
    device.memory.free(a).unwrap();
    let report = device.run("k", 1, 32, Params::default().ptr(a).ptr(b));
    assert_eq!(kinds(&report), [Kind::UseAfterFree]);
    let text = report.findings[0].to_string();
    assert!(
        text.contains("in (256 bytes), which was freed") && text.contains("(32 times)"),
        "{text}"
    );
}

#[test]
fn constants_are_not_written() {
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.const .align 4 .u32 c[2] = {1, 2};\n\
        .visible .entry k() { .reg .b64 %d; mov.u64 %d, c; st.global.u32 [%d], 1; ret; }";
    assert_eq!(kinds(&Device::new(ptx).run("k", 1, 1, Params::default())), [Kind::WriteToConstant]);
}

#[test]
fn what_is_not_known_is_an_error_that_names_it() {
    use halfstep_vgpu::memory::GlobalMemory;
    use halfstep_vgpu::ptx::Module;
    let error = |body: &str| {
        let text = format!("{HEAD}{body}\nret;\n}}\n");
        let module = Module::parse(&text).and_then(|m| m.load(&mut GlobalMemory::new()));
        module.and_then(|m| m.program("k").map(|_| ())).unwrap_err().to_string()
    };
    for (body, named) in [
        ("frobnicate.b32 %r1, %r1;", "frobnicate"),
        ("add.weird.s32 %r1, %r1, %r1;", ".weird"),
        ("add.s32 %r1, %r1, %q1;", "%q1"),
        (".unheard 5;", ".unheard"),
        (".pragma \"mystery\";", "mystery"),
        ("bra NOWHERE;", "NOWHERE"),
        ("ld.texture.u32 %r1, [%d0];", "texture"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f0}, {%r1}, {%r1}, {%f0};", "m8n8k4"),
        ("cvt.rn.tf32.f32 %r1, %f0;", "tf32"),
        ("call printf, (%r1);", "printf"),
        ("wgmma.fence.sync.aligned;", "wgmma"),
    ] {
        assert!(error(body).contains(named), "{}", error(body));
    }
}

/// Of many kernels few are run: what is wrong in one is an error when that one is wanted, and a file
/// that is cut short is none at all.
#[test]
fn kernels_are_read_one_by_one() {
    use halfstep_vgpu::memory::GlobalMemory;
    use halfstep_vgpu::ptx::Module;
    let text = format!(
        "{HEAD}ret;\n}}\n// }} {{ \".shared\"\n.visible .entry odd()\n{{\n.shared .b32 a[3];\n\
         {{ .shared .b64 b; }}\n/* .shared .b64 c; */\nfrobnicate;\nret;\n}}\n"
    );
    let module = Module::parse(&text).and_then(|m| m.load(&mut GlobalMemory::new())).unwrap();
    assert_eq!(module.kernels().collect::<Vec<_>>(), ["k", "odd"]);
    let odd = module.outline("odd").unwrap();
    assert_eq!((odd.shared, odd.max_threads), (24, None));
    module.program("k").unwrap();
    let error = module.program("odd").unwrap_err();
    let line = 1 + text.lines().position(|line| line == "frobnicate;").unwrap() as u32;
    assert!(error.line == line && error.what.contains("frobnicate"), "{error}");
    let cut = Module::parse(text.trim_end().trim_end_matches('}')).unwrap_err();
    assert!(cut.what.contains("without its end"), "{cut}");
}
