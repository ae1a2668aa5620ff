//! Gradients as 8-bit integers with error feedback, against a model of them: to the bit, and as close to
//! the exact sums over many steps as promised.
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::reduction::params_from;
use common::{cases, devices, ranks, reduction};
use halfstep::reduce::{BucketPlan, Config, Hierarchical, Reducer, Sum, Unscale};
use halfstep::{Device, Dtype, Error, Storage, bf16, f16};
use proptest::prelude::*;

/// Parameters in buckets that end inside of blocks of 256, and parts of ranks in which nothing is.
const LENGTHS: [usize; 7] = [3, 700, 0, 2049, 1, 255, 1400];

/// What a rank does in one step.
#[derive(Clone)]
struct Turn<G> {
    gradients: Vec<Option<Vec<G>>>,
    weight: f64,
    /// What is called before it.
    rescale: Option<f32>,
}

/// `[step][rank]`.
type Course<G> = Vec<Vec<Turn<G>>>;

/// Normal gradients, each step's and rank's its own.
fn course<G: Storage>(seed: u64, steps: usize, ranks: usize) -> Course<G> {
    let turn = |step: usize, rank: usize| {
        let mut rng = Rng(seed * 10_000 + (step * 100 + rank) as u64);
        let distribution = Distribution::REAL[rng.below(7)];
        let one = |&len: &usize| Some(distribution.fill(&mut rng, len));
        let gradients = LENGTHS.iter().map(one).collect();
        Turn { gradients, weight: 0.5 + rank as f64, rescale: None }
    };
    (0..steps).map(|step| (0..ranks).map(|rank| turn(step, rank)).collect()).collect()
}

fn plan() -> BucketPlan {
    BucketPlan::ddp(&params_from(&LENGTHS), Dtype::Bf16, 4000, 9000).unwrap()
}

fn config() -> Config {
    Config { sum: Sum::Int8, allow_unused: true, ..Config::default() }
}

/// How ranks are arranged: threads side by side, or in nodes of so many.
#[derive(Clone, Copy)]
enum Shape {
    Flat,
    Nodes(usize),
}

/// What every rank has after each step: tensors, and how many values of them are not finite.
fn run<G: Storage>(
    device: &Device,
    course: &Course<G>,
    (config, shape): (&Config, Shape),
    unscale: Unscale,
) -> Vec<(Vec<Vec<G>>, u64)> {
    let size = course[0].len();
    let node = match shape {
        Shape::Flat => size,
        Shape::Nodes(ranks) => ranks,
    };
    let rank = |comm: Box<dyn halfstep::reduce::Communicator>| {
        let rank = comm.rank();
        let stream = device.stream().unwrap();
        let mut reducer = Reducer::<G>::new(device, plan(), comm, config.clone()).unwrap();
        let step = |turns: &Vec<Turn<G>>| {
            let Turn { gradients, weight, rescale } = &turns[rank];
            if let Some(factor) = rescale {
                reducer.scale_feedback(&stream, *factor).unwrap();
            }
            reducer.set_weight(*weight).unwrap();
            let zeros = |&len: &usize| vec![G::narrow(7.0); len];
            let mut out: Vec<Vec<G>> = LENGTHS.iter().map(zeros).collect();
            let how = (config.views, unscale);
            reduction::step(device, &mut reducer, gradients, how, &mut out);
            (out, reducer.stats().unwrap().read(&stream).unwrap().non_finite)
        };
        course.iter().map(step).collect::<Vec<_>>()
    };
    let all = match shape {
        Shape::Flat => ranks::run(size, |comm| rank(Box::new(comm))),
        Shape::Nodes(_) => ranks::of_nodes((node, size / node), |inside, across| {
            let (inside, across) = (Box::new(inside), Box::new(across));
            let limit = std::time::Duration::from_secs(30);
            rank(Box::new(Hierarchical::new(device, inside, across, limit).unwrap()))
        }),
    };
    for other in &all {
        for (step, (theirs, first)) in other.iter().zip(&all[0]).enumerate() {
            assert!(bits(&theirs.0) == bits(&first.0), "step {step}: ranks agree");
        }
    }
    all.into_iter().next().unwrap()
}

fn bits<G: Storage>(tensors: &[Vec<G>]) -> Vec<u32> {
    tensors.iter().flatten().map(|value| value.widen().to_bits()).collect()
}

/// One block of 256, as it is documented: what is received of it; `v` becomes what is lost.
fn round_block(v: &mut [f32]) -> Vec<f32> {
    let m = v.iter().fold(0.0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x.abs()) });
    if m >= 2f32.powi(127) {
        v.fill(0.0);
        return vec![f32::NAN; v.len()];
    }
    if m < 2f32.powi(-100) {
        return vec![0.0; v.len()];
    }
    let (step, per) = (m * (1.0 / 127.0), 127.0 / m);
    let code = |x: &f32| (x * per).round_ties_even() as i32; // which has no -0
    let received: Vec<f32> = v.iter().map(|x| step * code(x) as f32).collect();
    v.iter_mut().zip(&received).for_each(|(v, r)| *v -= r);
    received
}

fn round(values: &mut [f32]) -> Vec<f32> {
    values.chunks_mut(256).flat_map(round_block).collect()
}

/// The whole of it, without buckets that travel: `[step]`, tensors.
fn model<G: Storage>(course: &Course<G>, config: &Config, unscale: f32) -> Vec<Vec<Vec<G>>> {
    let (plan, size) = (plan(), course[0].len());
    // Of each bucket: what each rank has lost, and what was lost of the sums.
    let mut carried: Vec<Vec<Vec<f32>>> =
        plan.buckets().iter().map(|b| vec![vec![0.0; b.len]; size + 1]).collect();
    let step = |turns: &Vec<Turn<G>>| {
        let mut out: Vec<Vec<G>> = LENGTHS
            .iter()
            .map(|&len| vec![G::narrow(if config.views { 0.0 } else { 7.0 }); len])
            .collect();
        let used = |param: usize| turns.iter().any(|turn| turn.gradients[param].is_some());
        // Who weighs nothing brings zeros.
        let weighing = turns.iter().filter(|turn| turn.weight > 0.0);
        let all = weighing.flat_map(|turn| turn.gradients.iter().flatten().flatten());
        let counts = all.map(|g| g.widen()).all(|g| (config.scale * g).is_finite());
        let total: f64 = turns.iter().map(|turn| turn.weight).sum();
        let factor = match config.average {
            true if total > 0.0 => (1.0 / total) as f32,
            true => 0.0,
            false => 1.0,
        };
        for (bucket, carried) in plan.buckets().iter().zip(&mut carried) {
            for (turn, carried) in turns.iter().zip(&mut *carried) {
                turn.rescale.into_iter().for_each(|f| carried.iter_mut().for_each(|e| *e *= f));
            }
            let rescale = turns[0].rescale.unwrap_or(1.0); // of sums: the tests call it on all ranks alike
            carried[size].iter_mut().for_each(|e| *e *= rescale);
            let before = carried.clone();
            let mut sum = vec![0.0f32; bucket.len];
            for (rank, turn) in turns.iter().enumerate() {
                let scale = (f64::from(config.scale) * turn.weight) as f32;
                let mut v = std::mem::take(&mut carried[rank]);
                for (&param, &offset) in bucket.params.iter().zip(&bucket.offsets) {
                    let gradient = turn.gradients[param].iter().flatten();
                    let gradient = gradient.filter(|_| turn.weight > 0.0);
                    gradient.zip(&mut v[offset..]).for_each(|(g, v)| *v += scale * g.widen());
                }
                let received = round(&mut v);
                sum.iter_mut()
                    .zip(&received)
                    .for_each(|(s, r)| *s = if rank == 0 { *r } else { *s + r });
                carried[rank] = v;
            }
            sum.iter_mut().zip(&carried[size]).for_each(|(s, e)| *s += e);
            let received = round(&mut sum);
            carried[size] = sum;
            for (&param, &offset) in bucket.params.iter().zip(&bucket.offsets) {
                let range = offset..offset + LENGTHS[param];
                if used(param) {
                    let unpacked = received[range].iter().map(|r| G::narrow(unscale * factor * r));
                    out[param] = unpacked.collect();
                } else {
                    for (now, before) in carried.iter_mut().zip(&before) {
                        now[range.clone()].copy_from_slice(&before[range.clone()]);
                    }
                }
            }
            if !counts || config.average && total == 0.0 {
                *carried = before;
            }
        }
        out
    };
    course.iter().map(step).collect()
}

fn same<G: Storage>(found: &[(Vec<Vec<G>>, u64)], expected: &[Vec<Vec<G>>], what: &str) {
    for (step, ((found, _), expected)) in found.iter().zip(expected).enumerate() {
        for (param, (found, expected)) in found.iter().zip(expected).enumerate() {
            for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                let (a, b) = (a.widen(), b.widen());
                let alike = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(alike, "{what}, step {step}, p{param}[{i}]: {a}, expected {b}");
            }
        }
    }
}

/// Everything at once: numbers of every size, weights, parameters that some ranks or all have no gradient for, a step that does
/// not count, and the loss scale halved after it.
fn eventful<G: Storage>(seed: u64, ranks: usize) -> Course<G> {
    let mut course = course::<G>(seed, 5, ranks);
    for gradient in course.iter_mut().flatten().flat_map(|turn| &mut turn.gradients).flatten() {
        // Whole blocks of small numbers, and of such as count as 0.
        for (from, exponent) in [(100, -60), (800, -98), (1400, -110)] {
            let small = gradient.iter_mut().skip(from).take(600);
            small.for_each(|g| *g = G::narrow(g.widen() * 2f32.powi(exponent)));
        }
    }
    course[1][0].gradients[3] = None;
    course[2].iter_mut().for_each(|turn| turn.gradients[1] = None);
    course[3][ranks - 1].gradients[6].as_mut().unwrap()[1000] = G::narrow(f32::INFINITY);
    course[4].iter_mut().for_each(|turn| turn.rescale = Some(0.5));
    course
}

/// Every device, storage type and number of ranks, with views and without, has the model's bits.
#[test]
fn every_device_follows_the_model() {
    fn check<G: Storage>(device: &Device, ranks: usize, views: bool) {
        let course = eventful::<G>(ranks as u64, ranks);
        let config = Config { views, scale: 0.75, average: ranks != 3, ..config() };
        let found = run(device, &course, (&config, Shape::Flat), Unscale::Factor(0.3));
        let what = format!("{} {} {ranks} {views}", device.info(), G::DTYPE);
        same(&found, &model(&course, &config, 0.3), &what);
        assert!(found[3].1 >= 1 && found[4].1 == 0, "what is not finite is not carried on");
    }
    for device in devices() {
        check::<f32>(&device, 2, false);
        check::<f32>(&device, 3, true);
        check::<bf16>(&device, 2, true);
        check::<bf16>(&device, 4, false);
        check::<f16>(&device, 5, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 8, ..cases() })]

    /// Any course of any number of ranks, by the model; in nodes as side by side.
    #[test]
    fn random_courses_follow_the_model(seed in 0u64..1 << 40, ranks in 2usize..6, steps in 1usize..5) {
        let mut course = course::<bf16>(seed, steps, ranks);
        let mut rng = Rng(seed);
        for turns in &mut course {
            let rescale = [None, Some(2.0), Some(0.0), Some(1.5)][rng.below(4)];
            for turn in turns {
                turn.weight = [0.0, 1.0, 3.0][rng.below(3)];
                turn.rescale = rescale;
                let unused = rng.below(3);
                turn.gradients.iter_mut().skip(unused).step_by(3).for_each(|g| *g = None);
                let spoilt = rng.below(20) == 0;
                for gradient in turn.gradients.iter_mut().flatten().take(usize::from(spoilt)) {
                    gradient[0] = bf16::NAN;
                }
            }
        }
        let config = Config { views: seed % 2 == 0, ..config() };
        let expected = model(&course, &config, 1.0);
        let cpu = Device::cpu();
        same(&run(&cpu, &course, (&config, Shape::Flat), Unscale::Keep), &expected, "flat");
        if ranks % 2 == 0 {
            let nodes = run(&cpu, &course, (&config, Shape::Nodes(2)), Unscale::Keep);
            same(&nodes, &expected, "nodes");
        }
    }

    /// Over many steps what is received adds up to what was sent, but for what the last step lost.
    #[test]
    fn nothing_is_lost_but_the_last_rounding(seed in 0u64..1 << 40, ranks in 2usize..5) {
        // The same gradients each time, whose rounding would lose the same each time.
        let course = vec![course::<f32>(seed, 1, ranks).remove(0); 30];
        let found = run(&Device::cpu(), &course, (&config(), Shape::Flat), Unscale::Keep);
        let total: f64 = course[0].iter().map(|turn| turn.weight).sum();
        for param in 0..LENGTHS.len() {
            for i in 0..LENGTHS[param] {
                let term = |turn: &Turn<f32>| {
                    turn.weight * f64::from(turn.gradients[param].as_ref().unwrap()[i])
                };
                let exact: f64 = course.iter().flatten().map(term).sum::<f64>() / total;
                let size: f64 = course.iter().flatten().map(|turn| term(turn).abs()).sum();
                let got: f64 = found.iter().map(|(tensors, _)| f64::from(tensors[param][i])).sum();
                // Blocks are of the bucket; the largest of the last step, with what was lost before: at most
                // 1/254 of the largest of that, so that twice the largest of any step is above it.
                let largest = |rank: usize| {
                    let all = course.iter().flat_map(|turns| turns[rank].gradients.iter());
                    let all = all.flatten().flatten().fold(0.0f64, |m, g| m.max(f64::from(*g).abs()));
                    1.01 * course[0][rank].weight * all
                };
                let ranks: f64 = (0..ranks).map(largest).sum();
                let bound = (ranks + 1.02 * ranks) / 254.0 / total + 2f64.powi(-20) * size / total;
                prop_assert!((got - exact).abs() <= bound, "{param} {i}: {got}, exact {exact}");
            }
        }
    }
}

/// Gradients below half a step of their block never get through alone; what is lost of them adds up until it
/// does: also over steps for which nobody has a sample, whose averages are 0.
#[test]
fn small_gradients_come_through_in_time() {
    let gradient: Vec<f32> = (0..255).map(|i| if i == 7 { 1.0 } else { 1e-3 }).collect();
    let turn = |weight| {
        let mut gradients = vec![None; LENGTHS.len()];
        gradients[5] = Some(gradient.clone());
        Turn { gradients, weight, rescale: None }
    };
    for weights in [&[1.0][..], &[1.0, 0.0]] {
        let step = |_| weights.iter().map(|&weight| vec![turn(weight), turn(weight)]);
        let course: Course<f32> = (0..100).flat_map(step).collect();
        let found = run(&Device::cpu(), &course, (&config(), Shape::Flat), Unscale::Keep);
        same(&found, &model(&course, &config(), 1.0), "small");
        assert_eq!(found[0].0[5][0], 0.0, "below half a step");
        let sum = |i: usize| found.iter().map(|(tensors, _)| tensors[5][i]).sum::<f32>();
        assert_eq!(sum(7), 100.0);
        assert!((sum(0) - 0.1).abs() <= 2.0 / 254.0, "{weights:?}: {}", sum(0));
    }
}

/// Sums of 2¹²⁷ and more are NaN, whatever they were made of, and are forgotten: what comes later is finite.
#[test]
fn sums_beyond_f32_are_not_carried_on() {
    let mut course = course::<f32>(3, 3, 2);
    for turn in &mut course[1] {
        turn.weight = 1.0;
        turn.gradients[5].as_mut().unwrap()[3] = 2f32.powf(126.5);
        turn.gradients[6].as_mut().unwrap()[3] = 2f32.powf(125.5);
    }
    let found = run(&Device::cpu(), &course, (&config(), Shape::Flat), Unscale::Keep);
    same(&found, &model(&course, &config(), 1.0), "sums");
    assert!(found[1].0[5][3].is_nan() && found[1].0[6][3].is_finite());
    assert!(found[2].1 == 0);
}

#[test]
fn calls_that_cannot_be_are_refused() {
    let device = Device::cpu();
    ranks::run(2, |comm| {
        let stream = device.stream().unwrap();
        let mut reducer = Reducer::<f32>::new(&device, plan(), Box::new(comm), config()).unwrap();
        for factor in [-1.0, f32::NAN, f32::INFINITY] {
            let error = reducer.scale_feedback(&stream, factor).unwrap_err();
            assert!(matches!(error, Error::Range { ref arg, .. } if arg == "factor"), "{error}");
        }
        reducer.ready(&stream, 0, &vec![1.0f32; 3]).unwrap();
        let error = reducer.scale_feedback(&stream, 2.0).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        let mut out: Vec<Vec<f32>> = LENGTHS.iter().map(|&len| vec![0.0; len]).collect();
        let mut to = common::reduction::refs(&mut out);
        reducer.finish(&stream, &mut to, Unscale::Keep).unwrap();
        reducer.scale_feedback(&stream, 2.0).unwrap();
    });
}
