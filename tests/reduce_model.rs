//! The reducer against a model of it, over random schedules: plans, storage and wire types, numbers of
//! ranks, orders of marks, micro-batches, unused parameters, weights, delays.
//!
//! Rank `r`'s gradient is a power of 3 (of 2, above 5 ranks) times a power of two that depends on the
//! parameter and the element. A sum then tells how often each rank has entered it, and whose element it
//! is: what is lost, counted twice or put in another's place gives other bits. All of it is exact in
//! every storage type, so that the expected bits are known.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::data::Rng;
use common::reduction::refs;
use common::{cpu, ranks};
use halfstep::reduce::{
    Abort, BucketPlan, Collective, Communicator, Config, Fault, Link, Local, Param, Parts, Reducer,
    Sum, Unscale,
};
use halfstep::{Buffer, Dtype, Storage, Stream, bf16, f16};

/// Schedules that are tried.
const SCHEDULES: u64 = 1000;

/// What all ranks do, and each by itself.
#[derive(Debug)]
struct Schedule {
    plan: BucketPlan,
    config: Config,
    unscale: Unscale,
    gradient: Dtype,
    /// Whether ranks that pause say that they are threads.
    lends: bool,
    /// `[step][rank]`.
    steps: Vec<Vec<Turn>>,
}

/// What one rank does in one step.
#[derive(Debug)]
struct Turn {
    weight: f64,
    /// Parameters with a gradient, in the order in which they are marked.
    order: Vec<usize>,
    /// For each parameter, how many micro-batches come before the one that is marked.
    before: Vec<usize>,
    /// Parameters whose micro-batches are never followed by a mark: `finish` sends them.
    unmarked: Vec<usize>,
    /// Out of 8, how many marks and exchanges a pause comes before.
    pauses: usize,
}

impl Schedule {
    fn random(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let ranks = 1 + rng.below(8);
        let lens: Vec<usize> = (0..rng.below(13))
            .map(|_| match rng.below(8) {
                0 => 0,
                1 => 1,
                2 => 5000 + rng.below(40_000), // several of the pieces that work is cut into
                _ => rng.below(700),
            })
            .collect();
        let params: Vec<Param> =
            lens.iter().enumerate().map(|(i, &len)| Param::new(format!("p{i}"), len)).collect();
        let wire = Dtype::ALL[rng.below(3)];
        let plan = if rng.below(2) == 0 {
            let limit = |rng: &mut Rng| 1 << rng.below(18);
            BucketPlan::ddp(&params, wire, limit(&mut rng), limit(&mut rng)).unwrap()
        } else {
            let ready: Vec<f64> = lens.iter().map(|_| rng.unit() * 1e-3).collect();
            let link = Link { alpha: rng.unit() * 1e-4, beta: rng.unit() * 1e-8 };
            BucketPlan::optimal(&params, wire, &ready, link).unwrap()
        };
        let config = Config {
            average: rng.below(2) == 0,
            allow_unused: rng.below(2) == 0,
            accumulate: rng.below(3) == 0,
            views: rng.below(2) == 0,
            stats: rng.below(4) > 0,
            sum: match rng.below(4) {
                0 => Sum::OrderFree,
                1 if wire == Dtype::F32 => Sum::Communicator, // other wires may round in between
                _ => Sum::RankOrder,
            },
            scale: [1.0, 0.5, 4.0][rng.below(3)],
            deadline: Duration::from_secs(60),
            flight_record: None,
        };
        let unscale = [Unscale::Keep, Unscale::Factor(0.3)][rng.below(2)];
        // Without weights and averages, sums are exact on every wire.
        let weighted = rng.below(2) == 0;
        let turn = |rng: &mut Rng| {
            let mut order: Vec<usize> = (0..lens.len()).collect();
            (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
            let before = |rng: &mut Rng| if config.accumulate { rng.below(4) } else { 0 };
            let before: Vec<usize> = lens.iter().map(|_| before(rng)).collect();
            if config.allow_unused {
                order.retain(|_| rng.below(3) > 0);
            }
            let mut unmarked = Vec::new();
            order.retain(|&param| {
                let left = before[param] > 0 && rng.below(4) == 0;
                unmarked.extend(left.then_some(param));
                !left
            });
            let weight = if weighted { (1 + rng.below(9)) as f64 } else { 1.0 };
            Turn { weight, order, before, unmarked, pauses: rng.below(2) * rng.below(5) }
        };
        let count = 1 + rng.below(3);
        let steps = (0..count).map(|_| (0..ranks).map(|_| turn(&mut rng)).collect()).collect();
        let lends = seed.is_multiple_of(2);
        Self { plan, config, unscale, gradient: Dtype::ALL[rng.below(3)], lends, steps }
    }

    /// Whether the communicator adds up: none of the ranks says that it is a thread.
    fn reduces(&self) -> bool {
        let late = self.steps[0].iter().all(|turn| turn.pauses > 0);
        self.config.sum == Sum::Communicator && late && !self.lends
    }

    fn ranks(&self) -> usize {
        self.steps[0].len()
    }

    /// Whether a rank has a gradient for a parameter in a step.
    fn has(&self, step: usize, rank: usize, param: usize) -> bool {
        let turn = &self.steps[step][rank];
        turn.order.contains(&param) || turn.unmarked.contains(&param)
    }

    /// What a rank adds for an element: `±base^rank · 2^e`.
    fn share(&self, step: usize, rank: usize, param: usize, element: usize) -> f64 {
        let base: f64 = if self.ranks() > 5 { 2.0 } else { 3.0 };
        let mut mix = (step as u64) << 50 ^ (param as u64) << 40 ^ element as u64;
        mix = (mix ^ mix >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
        mix ^= mix >> 27;
        let sign = if mix & 1 == 0 { 1.0 } else { -1.0 };
        sign * 2f64.powi((mix >> 1 & 3) as i32) * base.powi(rank as i32)
    }

    /// Micro-batch `batch` of `batches`: halves, then the rest.
    fn batch<G: Storage>(&self, share: f64, batch: usize, batches: usize) -> G {
        let last = batch + 1 == batches;
        let part = if last { 0.5f64.powi(batch as i32) } else { 0.5f64.powi(batch as i32 + 1) };
        let value = G::narrow((share * part) as f32);
        assert_eq!(f64::from(value.widen()), share * part, "a value of every storage type");
        value
    }

    /// The expected gradients of a step; `None` where nobody has one.
    fn expected<G: Storage>(&self, step: usize) -> Vec<Option<Vec<G>>> {
        let turns = &self.steps[step];
        let total: f64 = turns.iter().map(|turn| turn.weight).sum();
        let factor = if self.config.average { (1.0 / total) as f32 } else { 1.0 };
        let unscale = match self.unscale {
            Unscale::Factor(factor) => factor,
            _ => 1.0,
        };
        let param = |(param, declared): (usize, &Param)| {
            let there: Vec<usize> =
                (0..turns.len()).filter(|&r| self.has(step, r, param)).collect();
            let element = |i: usize| {
                let share = |&r: &usize| turns[r].weight * self.share(step, r, param, i);
                let sum = there.iter().map(share).sum::<f64>() * f64::from(self.config.scale);
                assert_eq!(f64::from(sum as f32), sum, "exact in f32, in any order");
                if self.ranks() == 1 {
                    // Alone: no wire, and a weight in sums only.
                    let own = (sum / turns[0].weight) as f32;
                    let weight = if self.config.average { 1.0 } else { turns[0].weight as f32 };
                    return G::narrow(unscale * weight * own);
                }
                if self.reduces() {
                    return G::narrow(unscale * factor * sum as f32);
                }
                if self.config.sum == Sum::OrderFree && self.plan.wire() != G::DTYPE {
                    return G::narrow(unscale * (sum as f32 * factor));
                }
                let sent = match self.plan.wire() {
                    Dtype::F32 => sum as f32 * factor,
                    Dtype::Bf16 => bf16::narrow(sum as f32 * factor).widen(),
                    Dtype::F16 => f16::narrow(sum as f32 * factor).widen(),
                };
                G::narrow(unscale * sent)
            };
            (!there.is_empty()).then(|| (0..declared.len).map(element).collect())
        };
        self.plan.params().iter().enumerate().map(param).collect()
    }
}

/// Pauses for a random moment, or not.
fn pause(rng: &mut Rng, pauses: usize) {
    if rng.below(8) < pauses {
        std::thread::sleep(Duration::from_micros(rng.below(200) as u64));
    }
}

/// Ranks come to their exchanges late. Some lend their buckets all the same.
struct Late {
    inner: Local,
    rng: Rng,
    pauses: usize,
    lends: bool,
}

impl Communicator for Late {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn exchange(
        &mut self,
        how: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        pause(&mut self.rng, self.pauses);
        self.inner.exchange(how, send, stream, deadline)
    }
    fn threads(&mut self) -> Option<&mut Local> {
        pause(&mut self.rng, self.pauses);
        self.lends.then_some(&mut self.inner)
    }
    fn aborter(&self) -> Arc<dyn Abort> {
        self.inner.aborter()
    }
}

/// What gradients are before they are written.
const UNTOUCHED: f32 = 7.0;

/// As a backward pass would, into the reducer's memory.
fn fill<G: Storage>(reducer: &mut Reducer<G>, param: usize, values: &[G]) {
    reducer.gradient_mut(param).unwrap().host().unwrap().copy_from_slice(values);
}

/// One rank's run. Returns, for each step, its gradients, and Σg².
fn rank<G: Storage>(schedule: &Schedule, comm: Local, seed: u64) -> Vec<(Vec<Vec<G>>, f64)> {
    let index = comm.rank();
    let mut rng = Rng(seed ^ (index as u64) << 32);
    let device = cpu(1 + rng.below(2));
    let stream = device.stream().unwrap();
    let pauses = schedule.steps[0][index].pauses;
    let comm: Box<dyn Communicator> = match pauses {
        0 => Box::new(comm),
        _ => Box::new(Late { inner: comm, rng: Rng(rng.0 ^ 1), pauses, lends: schedule.lends }),
    };
    let (plan, config) = (schedule.plan.clone(), schedule.config.clone());
    let mut reducer = Reducer::<G>::new(&device, plan, comm, config).unwrap();
    let views = schedule.config.views;
    let mut seen = Vec::new();
    for (step, turns) in schedule.steps.iter().enumerate() {
        let turn = &turns[index];
        reducer.set_weight(turn.weight).unwrap();
        let gradient = |param: usize, batch: usize, batches: usize| -> Vec<G> {
            let share = |i| schedule.share(step, index, param, i);
            let len = schedule.plan.params()[param].len;
            (0..len).map(|i| schedule.batch(share(i), batch, batches)).collect()
        };
        for &param in turn.order.iter().chain(&turn.unmarked) {
            let marked = usize::from(turn.order.contains(&param));
            for batch in 0..turn.before[param] {
                pause(&mut rng, turn.pauses);
                let g = gradient(param, batch, turn.before[param] + marked);
                if views {
                    fill(&mut reducer, param, &g);
                    reducer.accumulate_view(&stream, param).unwrap();
                } else {
                    reducer.accumulate(&stream, param, &g).unwrap();
                }
            }
            if marked == 0 {
                continue;
            }
            pause(&mut rng, turn.pauses);
            let mut g = gradient(param, turn.before[param], turn.before[param] + 1);
            if views {
                fill(&mut reducer, param, &g);
                reducer.ready_view(&stream, param).unwrap();
            } else {
                reducer.ready(&stream, param, &g).unwrap();
                g.fill(G::narrow(f32::NAN)); // ours again: nobody reads it any more
            }
        }
        let params = schedule.plan.params();
        let mut tensors: Vec<Vec<G>> =
            params.iter().map(|param| vec![G::narrow(UNTOUCHED); param.len]).collect();
        let reduced = if views {
            let reduced = reducer.finish_views(&stream, schedule.unscale).unwrap();
            for (param, tensor) in tensors.iter_mut().enumerate() {
                tensor.copy_from_slice(reducer.gradient(param).unwrap().host().unwrap());
                // What a backward pass leaves in a view that it does not mark is nobody's gradient.
                let mut view = reducer.gradient_mut(param).unwrap();
                view.host().unwrap().fill(G::narrow(f32::NAN));
            }
            reduced
        } else {
            reducer.finish(&stream, &mut refs(&mut tensors), schedule.unscale).unwrap()
        };
        let used = |param| (0..turns.len()).any(|r| schedule.has(step, r, param));
        assert_eq!(reduced.used, (0..params.len()).map(used).collect::<Vec<_>>());
        assert!(reduced.non_finite.is_empty());
        let stats = reducer.stats().map(|stats| stats.read(&stream).unwrap().sum_squares);
        assert_eq!(stats.is_ok(), schedule.config.stats);
        seen.push((tensors, stats.unwrap_or(0.0)));
    }
    seen
}

fn check<G: Storage>(schedule: &Schedule, seed: u64) {
    let all = ranks::run(schedule.ranks(), |comm| rank::<G>(schedule, comm, seed));
    for step in 0..schedule.steps.len() {
        for (param, expected) in schedule.expected::<G>(step).into_iter().enumerate() {
            let len = schedule.plan.params()[param].len;
            // Nobody has one: a tensor of the caller's is left alone, a view is zeros.
            let nothing = if schedule.config.views { 0.0 } else { UNTOUCHED };
            let expected = expected.unwrap_or_else(|| vec![G::narrow(nothing); len]);
            for (rank, seen) in all.iter().enumerate() {
                let found = &seen[step].0[param];
                let wrong = (0..len).find(|&i| found[i] != expected[i]);
                assert!(
                    wrong.is_none(),
                    "step {step}, rank {rank}, p{param}{:?}: {:?}, expected {:?}",
                    wrong,
                    wrong.map(|i| found[i]),
                    wrong.map(|i| expected[i]),
                );
            }
        }
        let norms: Vec<u64> = all.iter().map(|seen| seen[step].1.to_bits()).collect();
        assert!(norms.iter().all(|norm| *norm == norms[0]), "ranks differ in Σg²");
    }
}

#[test]
fn every_rank_has_every_element_reduced_once() {
    for seed in 0..SCHEDULES {
        let schedule = Schedule::random(seed);
        let run = || match schedule.gradient {
            Dtype::Bf16 => check::<bf16>(&schedule, seed),
            Dtype::F16 => check::<f16>(&schedule, seed),
            Dtype::F32 => check::<f32>(&schedule, seed),
        };
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            println!("schedule {seed}: {schedule:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// The schedules are what they are said to be: each kind of thing comes often enough to be tested.
#[test]
fn schedules_are_of_every_kind() {
    let all: Vec<Schedule> = (0..SCHEDULES).map(Schedule::random).collect();
    let turns = || all.iter().flat_map(|s| s.steps.iter().flatten());
    let count = |name: &str, found: usize| {
        println!("{name}: {found}");
        assert!(found >= 50, "{name}: {found}");
    };
    (1..=8)
        .for_each(|n| count(&format!("{n} ranks"), all.iter().filter(|s| s.ranks() == n).count()));
    let pairs = Dtype::ALL.into_iter().flat_map(|g| Dtype::ALL.map(|w| (g, w)));
    for (gradient, wire) in pairs {
        let same = |s: &&Schedule| s.gradient == gradient && s.plan.wire() == wire;
        count(&format!("{gradient} over {wire}"), all.iter().filter(same).count());
    }
    count("several buckets", all.iter().filter(|s| s.plan.buckets().len() > 1).count());
    count("views", all.iter().filter(|s| s.config.views).count());
    let lent = |s: &&Schedule| {
        let exact = s.gradient == Dtype::F32 || s.gradient == s.plan.wire();
        s.config.views && !s.config.accumulate && s.ranks() > 1 && exact
    };
    count("averaged in place", all.iter().filter(lent).count());
    count("pauses", turns().filter(|t| t.pauses > 0).count());
    count("micro-batches", turns().filter(|t| t.before.iter().any(|&n| n > 0)).count());
    count("never marked", turns().filter(|t| !t.unmarked.is_empty()).count());
    let unused = |s: &&Schedule| {
        let params = s.plan.params().len();
        (0..params).any(|p| {
            let has = (0..s.ranks()).filter(|&r| s.has(0, r, p)).count();
            (1..s.ranks()).contains(&has)
        })
    };
    count("unused by some", all.iter().filter(unused).count());
    let nobody =
        |s: &&Schedule| (0..s.plan.params().len()).any(|p| (0..s.ranks()).all(|r| !s.has(0, r, p)));
    count("unused by all", all.iter().filter(nobody).count());
}
