//! Sharded steps beside steps of whole tensors, as the suites write them: the same gradients on the same
//! ranks, once through a reducer and an optimizer of everything on each rank.

use halfstep::optim::{self, Group, Optimizer, Rule, Source, Tensor};
use halfstep::reduce::{BucketPlan, Communicator, Config, Reducer, Sharded, Unscale};
use halfstep::{Device, Dtype, Read, Storage, Stream, bf16};

use super::data::{Distribution, Rng};
use super::memory::Values;
use super::optim::{plain, writes};
use super::ranks;
use super::reduction::params_from;

/// What is stepped, and how.
#[derive(Clone)]
pub struct Case {
    pub ranks: usize,
    pub lens: Vec<usize>,
    pub rule: Rule,
    pub optim: optim::Config,
    pub config: Config,
    pub wire: Dtype,
    /// Limits of buckets, in bytes.
    pub caps: (usize, usize),
    /// Whether the optimizer's list runs the other way than the plan's.
    pub reversed: bool,
    pub unscale: Unscale,
    pub steps: usize,
    /// Whether all ranks have the same gradients, whose average is those on any number of ranks.
    pub alike: bool,
    /// In which step which rank has a NaN in which parameter.
    pub nan: Option<(usize, usize, usize)>,
    /// In which step nobody has a gradient of which parameter.
    pub unused: Option<(usize, usize)>,
}

impl Case {
    pub fn new(ranks: usize, lens: &[usize], rule: Rule, optim: optim::Config) -> Self {
        Self {
            ranks,
            lens: lens.to_vec(),
            rule,
            optim,
            config: Config { allow_unused: true, ..Config::default() },
            wire: Dtype::Bf16,
            caps: (60_000, 150_000),
            reversed: false,
            unscale: Unscale::Keep,
            steps: 3,
            alike: false,
            nan: None,
            unused: None,
        }
    }

    pub fn plan(&self) -> BucketPlan {
        BucketPlan::ddp(&params_from(&self.lens), self.wire, self.caps.0, self.caps.1).unwrap()
    }

    /// The optimizer's list, as places in the declared one.
    fn order(&self) -> Vec<usize> {
        let order = 0..self.lens.len();
        if self.reversed { order.rev().collect() } else { order.collect() }
    }

    /// Two groups, of which the second learns more slowly.
    pub fn groups(&self) -> Vec<Group> {
        let order = self.order();
        let half = order.len() / 2;
        let group = |params: &[usize], factor: f64| {
            let tensor = |&p: &usize| Tensor::new(format!("p{p}"), self.lens[p]).lr_factor(factor);
            Group::new(self.rule).tensors(params.iter().map(tensor))
        };
        vec![group(&order[..half], 1.0), group(&order[half..], 0.5)]
    }

    pub fn params<P: Storage>(&self) -> Vec<Values<P>> {
        let mut rng = Rng(3);
        self.lens.iter().map(|&len| Distribution::Normal.fill(&mut rng, len).into()).collect()
    }

    /// A rank's gradients in a step.
    pub fn gradients<G: Storage>(&self, rank: usize, step: usize) -> Vec<Values<G>> {
        let mut rng = Rng((1000 * step + if self.alike { 0 } else { rank }) as u64);
        let fill = |(param, &len): (usize, &usize)| {
            let mut values: Vec<G> = Distribution::Normal.fill(&mut rng, len);
            if self.nan == Some((step, rank, param)) {
                values[len / 2] = G::narrow(f32::NAN);
            }
            values.into()
        };
        self.lens.iter().enumerate().map(fill).collect()
    }

    pub fn weight(&self, rank: usize) -> f64 {
        if self.alike { 1.0 } else { 1.0 + rank as f64 }
    }

    /// The order in which a rank's gradients come in a step, without what is unused.
    pub fn marks(&self, rank: usize, step: usize) -> Vec<usize> {
        let mut marks: Vec<usize> = (0..self.lens.len()).rev().collect();
        let by = rank % marks.len().max(1);
        marks.rotate_left(by);
        marks.retain(|&param| self.unused != Some((step, param)));
        marks
    }
}

/// What a rank has in the end: each parameter's bits after each step, and what each step decided.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub params: Vec<Vec<u8>>,
    pub reports: Vec<String>,
}

pub fn bits<P: Storage>(params: &[Values<P>]) -> Vec<Vec<u8>> {
    params.iter().map(|param| bytemuck::cast_slice::<P, u8>(param).to_vec()).collect()
}

/// Each rank reduces and steps everything.
pub fn whole<P: Storage, G: Storage>(
    case: &Case,
    device: &Device,
    end: impl Fn(&mut Optimizer<P, G>, &Stream) + Sync,
) -> Vec<Outcome> {
    ranks::run(case.ranks, |comm| {
        let rank = comm.rank();
        let stream = device.stream().unwrap();
        let (plan, config) = (case.plan(), case.config.clone());
        let mut reducer = Reducer::<G>::new(device, plan, Box::new(comm), config).unwrap();
        let mut optimizer = Optimizer::<P, G>::new(device, &case.groups(), case.optim).unwrap();
        let order = case.order();
        let mut params = case.params::<P>();
        let reads = plain(&params);
        let reads: Vec<&dyn Read<P>> = order.iter().map(|&param| reads[param]).collect();
        optimizer.load_params(&stream, &reads).unwrap();
        let mut outcome = Outcome { params: Vec::new(), reports: Vec::new() };
        for step in 0..case.steps {
            reducer.set_weight(case.weight(rank)).unwrap();
            let mut grads = case.gradients::<G>(rank, step);
            let early = case.gradients::<G>(rank, 100 + step);
            for param in case.marks(rank, step) {
                if case.config.accumulate && param % 2 == 1 {
                    reducer.accumulate(&stream, param, &early[param]).unwrap();
                }
                reducer.ready(&stream, param, &grads[param]).unwrap();
            }
            let reduced = reducer.finish(&stream, &mut writes(&mut grads), case.unscale).unwrap();
            let some =
                |&param: &usize| reduced.used[param].then_some(&grads[param] as &dyn Read<G>);
            let grads: Vec<_> = order.iter().map(some).collect();
            let stats = [reducer.stats().unwrap()];
            let source = match case.unscale {
                Unscale::Keep => Source::Scaled(&stats),
                _ => Source::Unscaled(&stats),
            };
            optimizer.control(&stream, source, &grads).unwrap();
            let mut all = writes(&mut params);
            if case.reversed {
                all.reverse();
            }
            optimizer.step(&stream, &mut all, &grads).unwrap();
            drop(all);
            outcome.params.extend(bits(&params));
            outcome.reports.push(format!("{:?}", optimizer.report(&stream).unwrap()));
        }
        end(&mut optimizer, &stream);
        outcome
    })
}

/// Each rank steps its part.
pub fn sharded<P: Storage, G: Storage>(
    case: &Case,
    device: &Device,
    end: impl Fn(&mut Sharded<P, G>, &Stream, usize) + Sync,
) -> Vec<Outcome> {
    ranks::run(case.ranks, |comm| one_rank(case, device, comm, &end))
}

/// One of them, of any communicator.
pub fn one_rank<P: Storage, G: Storage>(
    case: &Case,
    device: &Device,
    comm: impl Communicator + 'static,
    end: &impl Fn(&mut Sharded<P, G>, &Stream, usize),
) -> Outcome {
    let rank = comm.rank();
    let stream = device.stream().unwrap();
    let mut sharded = open::<P, G>(case, device, comm);
    let mut params = case.params::<P>();
    sharded.load_params(&stream, &plain(&params)).unwrap();
    let mut outcome = Outcome { params: Vec::new(), reports: Vec::new() };
    run(case, &mut sharded, &stream, rank, 0..case.steps, &mut params, &mut outcome);
    end(&mut sharded, &stream, rank);
    outcome
}

pub fn open<P: Storage, G: Storage>(
    case: &Case,
    device: &Device,
    comm: impl Communicator + 'static,
) -> Sharded<P, G> {
    let (comm, config) = (Box::new(comm), case.config.clone());
    Sharded::new(device, case.plan(), comm, config, &case.groups(), case.optim).unwrap()
}

/// Some steps of one rank.
pub fn run<P: Storage, G: Storage>(
    case: &Case,
    sharded: &mut Sharded<P, G>,
    stream: &Stream,
    rank: usize,
    steps: std::ops::Range<usize>,
    params: &mut [Values<P>],
    outcome: &mut Outcome,
) {
    for step in steps {
        sharded.set_weight(case.weight(rank)).unwrap();
        let grads = case.gradients::<G>(rank, step);
        let early = case.gradients::<G>(rank, 100 + step);
        for param in case.marks(rank, step) {
            if case.config.accumulate && param % 2 == 1 {
                sharded.accumulate(stream, param, &early[param]).unwrap();
            }
            sharded.ready(stream, param, &grads[param]).unwrap();
        }
        sharded.step(stream, &mut writes(params), case.unscale).unwrap();
        // Each rank reads its parameters in another order.
        for at in 0..params.len() {
            let param = (at + rank) % params.len();
            sharded.wait(stream, param, &mut params[param]).unwrap();
        }
        outcome.params.extend(bits(params));
        outcome.reports.push(format!("{:?}", sharded.report(stream).unwrap()));
    }
}

/// Both have the same bits and decisions, on every rank and after every step.
pub fn same<P: Storage, G: Storage>(case: &Case, device: &Device) {
    let expected = whole::<P, G>(case, device, |_, _| {});
    let found = sharded::<P, G>(case, device, |_, _, _| {});
    let name = format!(
        "{} ranks, {:?}, {:?}, wire {}, P {}, G {}",
        case.ranks,
        case.rule,
        case.optim,
        case.wire,
        P::DTYPE,
        G::DTYPE
    );
    for (rank, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.reports, expected.reports, "rank {rank} of {name}");
        let tensors = case.lens.len();
        for (at, (found, expected)) in found.params.iter().zip(&expected.params).enumerate() {
            let (step, param) = (at / tensors, at % tensors);
            assert!(found == expected, "step {step}, parameter {param}, rank {rank} of {name}");
        }
    }
    assert_eq!(found.len(), expected.len());
    assert!(found[0].params.len() == case.steps * case.lens.len());
    // Something was learnt, unless nothing should have been.
    let start = bits(&case.params::<P>());
    let last = &found[0].params[(case.steps - 1) * case.lens.len()..];
    assert!(last != &start[..] || case.lens.iter().sum::<usize>() == 0, "{name}: nothing moved");
}

/// bf16 parameters and gradients.
pub fn same_bf16(case: &Case, device: &Device) {
    same::<bf16, bf16>(case, device);
}
