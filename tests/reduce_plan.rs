//! Bucket plans: against PyTorch's, against brute force, and their rules.
#![allow(missing_docs)]

mod common;

use common::data::Rng;
use halfstep::reduce::{BucketPlan, Link, Param, ready_by_elements};
use halfstep::{Dtype, Error};
use proptest::prelude::*;

const MIB: usize = 1 << 20;

fn sizes_in_mib(plan: &BucketPlan) -> Vec<f64> {
    plan.bytes().iter().map(|&b| (b as f64 / MIB as f64 * 100.0).round() / 100.0).collect()
}

/// `torch.distributed._compute_bucket_assignment_by_size` of PyTorch 2.15 on the same list.
#[test]
fn ddp_plan_equals_pytorchs_on_wav2vec2() {
    let params = common::workloads::wav2vec2_base_ctc();
    assert_eq!((params.len(), params.iter().map(|p| p.len).sum::<usize>()), (213, 94_396_320));
    let f32s = BucketPlan::ddp(&params, Dtype::F32, MIB, 25 * MIB).unwrap();
    let mut expected = vec![0.1];
    expected.extend([27.04; 12]);
    expected.extend([32.51, 3.03]);
    assert_eq!(sizes_in_mib(&f32s), expected);
    let one = BucketPlan::ddp(&params, Dtype::F32, 25 * MIB, 25 * MIB).unwrap();
    assert_eq!(one.buckets().len(), 14);
    let bf16s = BucketPlan::ddp(&params, Dtype::Bf16, MIB, 25 * MIB).unwrap();
    let expected = [18.08, 27.04, 27.04, 27.04, 27.04, 27.04, 25.27, 1.51];
    assert_eq!(sizes_in_mib(&bf16s), expected);
}

/// Every parameter is in one bucket, once, at the place the plan says; buckets have no holes.
fn check_plan(plan: &BucketPlan) {
    let mut seen = vec![0; plan.params().len()];
    for (index, bucket) in plan.buckets().iter().enumerate() {
        let mut end = 0;
        for (position, (&param, &offset)) in bucket.params.iter().zip(&bucket.offsets).enumerate() {
            seen[param] += 1;
            assert_eq!(plan.place(param), (index, position));
            assert_eq!(offset, end);
            end += plan.params()[param].len;
        }
        assert_eq!(bucket.len, end);
    }
    assert!(seen.iter().all(|&n| n == 1), "each parameter once: {seen:?}");
}

fn params_from(lens: &[usize]) -> Vec<Param> {
    lens.iter().enumerate().map(|(i, &len)| Param::new(format!("p{i}"), len)).collect()
}

/// The end of the last exchange for given bucket boundaries, straight from the definition.
fn end_of(bounds: &[usize], ready: &[f64], bytes: &[usize], link: Link) -> f64 {
    let (mut time, mut start) = (0.0f64, 0);
    for &end in bounds {
        let there = ready[..end].iter().fold(0.0f64, |t, &r| t.max(r));
        time = time.max(there) + link.seconds(bytes[start..end].iter().sum());
        start = end;
    }
    time
}

proptest! {
    #![proptest_config(common::cases())]

    #[test]
    fn every_parameter_is_in_one_bucket(
        lens in proptest::collection::vec(0usize..3000, 0..40),
        first in 1usize..5000, cap in 1usize..20000,
    ) {
        let params = params_from(&lens);
        let plan = BucketPlan::ddp(&params, Dtype::Bf16, first, cap).unwrap();
        check_plan(&plan);
        // Only the bucket that goes first, the list's end, may be below its limit.
        for bytes in plan.bytes().iter().skip(1).rev().skip(1) {
            prop_assert!(*bytes >= cap);
        }
        let link = Link { alpha: 1e-5, beta: 1e-9 };
        let ready = ready_by_elements(&params, 1e-3);
        check_plan(&BucketPlan::optimal(&params, Dtype::F32, &ready, link).unwrap());
    }

    /// No way to cut the list ends earlier: all 2^(n-1) are tried.
    #[test]
    fn the_optimal_plan_equals_brute_force(seed: u64, n in 1usize..10, in_order: bool) {
        let mut rng = Rng(seed);
        let params = params_from(&(0..n).map(|_| rng.below(1000)).collect::<Vec<_>>());
        let mut ready: Vec<f64> = (0..n).map(|_| rng.unit() * 1e-3).collect();
        let mut link = Link { alpha: rng.unit() * 3e-4, beta: rng.unit() * 1e-6 };
        if in_order {
            // As a backward pass goes, and with a link that keeps up with it: many plans end equally early.
            ready.sort_by(|a, b| b.total_cmp(a));
            link.beta *= 0.01;
        }
        let plan = BucketPlan::optimal(&params, Dtype::F32, &ready, link).unwrap();

        let backwards: Vec<f64> = ready.iter().rev().copied().collect();
        let bytes: Vec<usize> = params.iter().rev().map(|p| p.len * 4).collect();
        // The earliest that the first `count` to be ready can end.
        let earliest = |count: usize| {
            let mut best = f64::INFINITY;
            for cuts in 0..1u32 << (count - 1) {
                let mut bounds: Vec<usize> =
                    (1..count).filter(|i| cuts >> (i - 1) & 1 == 1).collect();
                bounds.push(count);
                best = best.min(end_of(&bounds, &backwards[..count], &bytes[..count], link));
            }
            best
        };
        let mut count = 0;
        for (bucket, slot) in plan.buckets().iter().zip(plan.timeline(&ready, link).unwrap()) {
            count += bucket.params.len();
            let (end, best) = (slot.end, earliest(count));
            prop_assert!((end - best).abs() <= 1e-12 * best, "plan {end}, brute force {best}");
        }
        prop_assert_eq!(count, n);
    }
}

#[test]
fn the_optimal_plan_hides_more_than_fixed_caps() {
    let params = common::workloads::wav2vec2_base_ctc();
    let backward = 0.1;
    let ready = ready_by_elements(&params, backward);
    let link = Link { alpha: 160e-6, beta: 1.0 / 20.7e9 };
    let exposed =
        |plan: &BucketPlan| plan.timeline(&ready, link).unwrap().last().unwrap().end - backward;
    let ddp = exposed(&BucketPlan::ddp(&params, Dtype::F32, MIB, 25 * MIB).unwrap());
    let one = exposed(&BucketPlan::ddp(&params, Dtype::F32, usize::MAX, usize::MAX).unwrap());
    let best = exposed(&BucketPlan::optimal(&params, Dtype::F32, &ready, link).unwrap());
    println!("exposed: one bucket {one:.2e} s, DDP {ddp:.2e} s, optimal {best:.2e} s");
    assert!(best < 0.5 * ddp && ddp < one);
}

/// K-06, K-07: a parameter above the limit has a bucket to itself; empty ones are carried along.
#[test]
fn k06_k07_oversized_and_empty_parameters() {
    let params = params_from(&[10, 0, 5000, 0, 0, 10]);
    let plan = BucketPlan::ddp(&params, Dtype::F32, 1000, 1000).unwrap();
    check_plan(&plan);
    let of_big = &plan.buckets()[plan.place(2).0];
    assert_eq!(of_big.params.last(), Some(&2), "the bucket closes with it");
    let none = BucketPlan::ddp(&[], Dtype::F32, 1, 1).unwrap();
    assert!(none.buckets().is_empty());
}

/// K-18: more than 2³¹ elements in all; offsets are 64 bits wide.
#[test]
fn k18_more_than_two_to_the_31_elements() {
    let params = params_from(&[1 << 31, (1 << 31) + 1, 7]);
    let plan = BucketPlan::ddp(&params, Dtype::Bf16, usize::MAX, usize::MAX).unwrap();
    assert_eq!(plan.buckets()[0].offsets, [0, 1 << 31, (1 << 32) + 1]);
    let params = params_from(&[usize::MAX, 2]);
    let error = BucketPlan::ddp(&params, Dtype::Bf16, 1, 1).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn bad_limits_times_and_costs_are_errors() {
    let params = params_from(&[1, 2]);
    let link = Link { alpha: 0.0, beta: 0.0 };
    let range = |result: halfstep::Result<BucketPlan>, arg: &str| match result.unwrap_err() {
        Error::Range { arg: found, .. } => assert_eq!(found, arg),
        other => panic!("{other}"),
    };
    range(BucketPlan::ddp(&params, Dtype::F32, 0, 1), "first_bytes");
    range(BucketPlan::ddp(&params, Dtype::F32, 1, 0), "bytes");
    range(BucketPlan::optimal(&params, Dtype::F32, &[0.0, f64::NAN], link), "ready[1]");
    let bad = Link { beta: -1.0, ..link };
    range(BucketPlan::optimal(&params, Dtype::F32, &[0.0, 0.0], bad), "link.beta");
    let error = BucketPlan::optimal(&params, Dtype::F32, &[0.0], link).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn the_hash_sees_every_difference() {
    let base = params_from(&[10, 20, 30]);
    let plan = |params: &[Param], wire, cap| BucketPlan::ddp(params, wire, cap, cap).unwrap();
    let hash = plan(&base, Dtype::F32, 100).hash();
    let mut renamed = base.clone();
    renamed[1].name.push('x');
    let mut longer = base.clone();
    longer[1].len += 1;
    let mut swapped = base.clone();
    swapped.swap(0, 1);
    for other in [
        plan(&renamed, Dtype::F32, 100),
        plan(&longer, Dtype::F32, 100),
        plan(&swapped, Dtype::F32, 100),
        plan(&base[..2], Dtype::F32, 100),
        plan(&base, Dtype::Bf16, 100),
        plan(&base, Dtype::F32, 1000),
    ] {
        assert_ne!(other.hash(), hash);
    }
    assert_eq!(plan(&base, Dtype::F32, 100).hash(), hash);
}
