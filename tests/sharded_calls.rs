//! Calls of sharded steps: what is refused and how, memory, what a forward pass waits for, lost ranks.
#![allow(missing_docs)]

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::memory::Values;
use common::optim::{plain, writes};
use common::reduction::params_from;
use common::sharded::{Case, open};
use common::{cpu, ranks};
use halfstep::optim::{AdamW, Config, Group, Rule, Scaler, Sgd, Skip, Tensor};
use halfstep::reduce::{
    Abort, BucketPlan, Collective, Communicator, Fault, Local, Parts, Reducer, Sharded, Sum,
    Unscale, local,
};
use halfstep::{Buffer, Dtype, Error, Read, Stream, Write, bf16};

const LENS: [usize; 4] = [5, 40_000, 0, 70_001];

fn adamw() -> Rule {
    AdamW { lr: 0.01, ..AdamW::default() }.into()
}

fn case(ranks: usize) -> Case {
    Case::new(ranks, &LENS, adamw(), Config::default())
}

/// A rank whose parameters have values, and whose gradients are all there; and these parameters.
fn about_to_step(case: &Case, comm: Local) -> (Stream, Sharded<bf16, bf16>, Vec<Values<bf16>>) {
    let rank = comm.rank();
    let stream = cpu(1).stream().unwrap();
    let mut sharded = open(case, stream.device(), comm);
    let params = case.params();
    sharded.load_params(&stream, &plain(&params)).unwrap();
    let grads = case.gradients::<bf16>(rank, 0);
    for param in case.marks(rank, 0) {
        sharded.ready(&stream, param, &grads[param]).unwrap();
    }
    (stream, sharded, params)
}

fn alone() -> Box<Local> {
    Box::new(local(1.try_into().unwrap()).remove(0))
}

fn new(plan: BucketPlan, config: halfstep::reduce::Config, groups: &[Group]) -> Result<(), String> {
    let made =
        Sharded::<bf16, bf16>::new(&cpu(1), plan, alone(), config, groups, Config::default());
    made.map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn groups_and_plan_have_the_same_tensors() {
    let plan = |names: &[&str]| {
        let params: Vec<_> =
            names.iter().map(|&name| halfstep::reduce::Param::new(name, 7)).collect();
        BucketPlan::ddp(&params, Dtype::Bf16, 100, 100).unwrap()
    };
    let group = |tensors: &[(&str, usize)]| {
        let tensors = tensors.iter().map(|&(name, len)| Tensor::new(name, len));
        [Group::new(adamw()).tensors(tensors)]
    };
    let config = halfstep::reduce::Config::default();
    let refused = |plan, groups: &[Group], expected: &str| {
        let error = new(plan, config.clone(), groups).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let two = || plan(&["a", "b"]);
    refused(
        two(),
        &group(&[("a", 7), ("c", 7)]),
        "groups[0].tensors[1]: expected a parameter of the plan, found c",
    );
    refused(two(), &group(&[("b", 7)]), "expected every parameter of the plan, found none with a");
    refused(
        two(),
        &group(&[("b", 7), ("a", 8)]),
        "groups[0].tensors[1]: expected 7 elements (a), found 8",
    );
    refused(two(), &group(&[("b", 7), ("a", 7), ("a", 7)]), "every parameter once");
    refused(plan(&["a", "a"]), &group(&[("a", 7), ("b", 7)]), "every parameter's name once");
    let views = halfstep::reduce::Config { views: true, ..config.clone() };
    let error = new(two(), views, &group(&[("a", 7), ("b", 7)])).unwrap_err();
    assert!(error.contains("views"), "{error}");
    let sum = halfstep::reduce::Config { sum: Sum::OrderFree, ..config.clone() };
    let error = new(two(), sum, &group(&[("a", 7), ("b", 7)])).unwrap_err();
    assert!(error.contains("rank order"), "{error}");
    assert_eq!(new(two(), config, &group(&[("b", 7), ("a", 7)])), Ok(()));
}

/// Each is an error that names the argument, and nothing has changed: the step that follows is the one
/// that would have been made.
#[test]
fn bad_calls_change_nothing() {
    let expected = common::sharded::whole::<bf16, bf16>(&case(2), &cpu(1), |_, _| {});
    ranks::run(2, |comm| {
        let rank = comm.rank();
        let stream = cpu(1).stream().unwrap();
        let case = case(2);
        let mut sharded: Sharded<bf16, bf16> = open(&case, stream.device(), comm);
        let mut params = case.params::<bf16>();
        let grads = case.gradients::<bf16>(rank, 0);
        sharded.set_weight(case.weight(rank)).unwrap();
        let says = |error: Error, expected: &str| {
            assert!(error.to_string().contains(expected), "{error}, not {expected}");
        };
        for param in case.marks(rank, 0) {
            sharded.ready(&stream, param, &grads[param]).unwrap();
        }
        // No values for masters yet.
        says(
            sharded.step(&stream, &mut writes(&mut params), Unscale::Keep).unwrap_err(),
            "load_params",
        );
        let short: Vec<&dyn Read<bf16>> = plain(&params)[1..].to_vec();
        says(sharded.load_params(&stream, &short).unwrap_err(), "expected 4 tensors, found 3");
        sharded.load_params(&stream, &plain(&params)).unwrap();
        let error = sharded.step(&stream, &mut writes(&mut params)[1..], Unscale::Keep);
        says(error.unwrap_err(), "params: expected 4 tensors, found 3");
        let mut longer = vec![bf16::ONE; 6];
        let mut list = writes(&mut params);
        list[0] = &mut longer;
        says(
            sharded.step(&stream, &mut list, Unscale::Keep).unwrap_err(),
            "params[0] (p0): expected 5 elements, found 6",
        );
        let factor = Unscale::Factor(f32::NAN);
        says(sharded.step(&stream, &mut writes(&mut params), factor).unwrap_err(), "unscale");
        says(sharded.wait(&stream, 4, &mut longer).unwrap_err(), "an index below 4");
        says(
            sharded.wait(&stream, 0, &mut longer).unwrap_err(),
            "parameter p0: expected 5 elements, found 6",
        );

        sharded.step(&stream, &mut writes(&mut params), Unscale::Keep).unwrap();
        let error = sharded.step(&stream, &mut writes(&mut params), Unscale::Keep).unwrap_err();
        says(error, "p0 not waited for");
        says(sharded.load_params(&stream, &plain(&params)).unwrap_err(), "p0 not waited for");
        for param in [0, 1, 3] {
            sharded.wait(&stream, param, &mut params[param]).unwrap(); // 2 has no elements
        }
        sharded.load_params(&stream, &plain(&params)).unwrap();
        sharded.wait_all(&stream, &mut writes(&mut params)).unwrap(); // nothing is left to do
        assert!(common::sharded::bits(&params) == expected[rank].params[..4]);
    });
}

/// Ranks whose optimizers differ, or of which one does not shard, are told before anything is sent.
#[test]
fn ranks_that_differ_are_told() {
    let mismatch = |error: Error| matches!(error, Error::Comm(Fault::PlanMismatch { .. }));
    ranks::run(2, |comm| {
        let mut case = case(2);
        case.optim.seed = comm.rank() as u64;
        let (plan, groups, device) = (case.plan(), case.groups(), cpu(1));
        let (config, comm) = (case.config, Box::new(comm));
        let made = Sharded::<bf16, bf16>::new(&device, plan, comm, config, &groups, case.optim);
        assert!(made.is_err_and(mismatch));
    });
    ranks::run(2, |comm| {
        let case = case(2);
        let (plan, device, config) = (case.plan(), cpu(1), case.config.clone());
        if comm.rank() == 1 {
            let made = Reducer::<bf16>::new(&device, plan, Box::new(comm), config);
            return assert!(made.is_err_and(mismatch));
        }
        let groups = case.groups();
        let comm = Box::new(comm);
        let made = Sharded::<bf16, bf16>::new(&device, plan, comm, config, &groups, case.optim);
        assert!(made.is_err_and(mismatch));
    });
}

/// Ranks that would step their parts of one tensor otherwise: told on every rank, before anything is written.
#[test]
fn ranks_that_step_otherwise_are_told() {
    let rate = "one learning rate of groups[1] on every rank, found 0.01 on rank 0, 0.5 on rank 1";
    let factor =
        "one factor of gradients on every rank, found Keep on rank 0, Factor(0.25) on rank 1";
    for (expected, which) in [(rate, 0), (factor, 1)] {
        ranks::run(3, |comm| {
            let (rank, case) = (comm.rank(), case(3));
            let (stream, mut sharded, mut params) = about_to_step(&case, comm);
            let other = rank == 1;
            let lr = if other && which == 0 { 0.5 } else { 0.01 };
            sharded.set_lr(1, lr).unwrap();
            let unscale = if other && which == 1 { Unscale::Factor(0.25) } else { Unscale::Keep };
            for _ in 0..2 {
                let error = sharded.step(&stream, &mut writes(&mut params), unscale).unwrap_err();
                assert!(error.to_string().contains(expected), "{error}");
            }
            assert!(
                common::sharded::bits(&params) == common::sharded::bits(&case.params::<bf16>())
            );
        });
    }
}

/// Masters and moments take 1/N of the memory on each rank, to within a chunk of each bucket.
#[test]
fn state_is_shared_out() {
    let lens = [300_000, 5, 1_000_000, 0, 500_001];
    for (rule, each) in [(adamw(), 12), (Sgd { lr: 0.1, ..Sgd::default() }.into(), 4)] {
        let all: usize = lens.iter().sum::<usize>() * each;
        for size in 1..=4 {
            let case = Case {
                caps: (1 << 20, 1 << 21),
                ..Case::new(size, &lens, rule, Config::default())
            };
            let buckets = case.plan().buckets().len();
            assert!(buckets > 1);
            let bytes =
                ranks::run(size, |comm| open::<bf16, bf16>(&case, &cpu(1), comm).state_bytes());
            // Each tensor's part starts at a multiple of 64 elements.
            let slack = lens.len() * 64 * each;
            let sum: usize = bytes.iter().sum();
            assert!((all..=all + size * slack).contains(&sum), "{sum} of {all}");
            let most = all / size + buckets * 16_384 * each + slack;
            assert!(bytes.iter().all(|&bytes| bytes <= most), "{bytes:?}, {most}");
        }
    }
}

/// A report names tensors by their place in the groups' list.
#[test]
fn the_first_tensor_with_a_nan_is_named() {
    let config = Config { scaler: Scaler::Fixed(2.0), ..Config::default() };
    let case = Case::new(2, &LENS, adamw(), config);
    let case = Case { nan: Some((0, 1, 3)), reversed: true, steps: 1, ..case };
    common::sharded::sharded::<bf16, bf16>(&case, &cpu(1), |sharded, stream, _| {
        let report = sharded.report(stream).unwrap();
        assert_eq!(report.skipped, Some(Skip::NonFinite { tensor: 0, count: 1 }));
        assert_eq!(sharded.last_report(), Some(report));
        assert_eq!(sharded.scale(stream).unwrap(), 2.0);
    });
}

/// Masters from finer values: parameters are those values rounded, on every rank.
#[test]
fn parameters_from_f32_values_are_whole_on_every_rank() {
    ranks::run(3, |comm| {
        let case = case(3);
        let stream = cpu(1).stream().unwrap();
        let mut sharded: Sharded<bf16, bf16> = open(&case, stream.device(), comm);
        let values = case.params::<f32>();
        let mut params: Vec<Vec<bf16>> = LENS.iter().map(|&len| vec![bf16::ZERO; len]).collect();
        let mut list = common::reduction::refs(&mut params);
        sharded.init_from_f32(&stream, &plain(&values), &mut list).unwrap();
        sharded.wait_all(&stream, &mut list).unwrap();
        for (param, values) in params.iter().zip(&values) {
            assert!(param.iter().zip(values.iter()).all(|(p, v)| *p == bf16::from_f32(*v)));
        }
    });
}

/// A communicator that holds one of its gathers back until it is told to go on.
struct Gate {
    inner: Local,
    /// Gathers until then.
    left: Arc<Mutex<Option<usize>>>,
    open: Receiver<()>,
}

impl Communicator for Gate {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let mut left = self.left.lock().unwrap();
        match *left {
            Some(0) => {
                *left = None;
                drop(left);
                self.open
                    .recv_timeout(Duration::from_secs(30))
                    .expect("waited for more than it needs");
            }
            Some(count) if collective == Collective::AllGather => *left = Some(count - 1),
            _ => {}
        }
        self.inner.exchange(collective, send, stream, deadline)
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        self.inner.aborter()
    }
}

/// A forward pass waits for the bucket of the parameter that it reads next, and buckets come in the order
/// in which it reads them: the first parameter is there while the last one's bucket is held back.
#[test]
fn a_parameter_is_there_before_those_that_are_read_later() {
    let lens = [20_000, 20_000, 20_000];
    let plan = BucketPlan::ddp(&params_from(&lens), Dtype::Bf16, 1, 1).unwrap();
    assert_eq!(plan.buckets().len(), 3);
    ranks::run(2, |comm| {
        let rank = comm.rank();
        let case = Case { caps: (1, 1), ..Case::new(2, &lens, adamw(), Config::default()) };
        let stream = cpu(1).stream().unwrap();
        let left = Arc::new(Mutex::new(None));
        let (opens, open_) = channel();
        let comm = Gate { inner: comm, left: left.clone(), open: open_ };
        let mut sharded: Sharded<bf16, bf16> = open(&case, stream.device(), comm);
        let mut params = case.params::<bf16>();
        let before = common::sharded::bits(&params);
        sharded.load_params(&stream, &plain(&params)).unwrap();
        let grads = case.gradients::<bf16>(rank, 0);
        for param in (0..3).rev() {
            sharded.ready(&stream, param, &grads[param]).unwrap();
        }
        // One gather of partials, and two of parameters.
        *left.lock().unwrap() = Some(3);
        sharded.step(&stream, &mut writes(&mut params), Unscale::Keep).unwrap();
        for param in 0..2 {
            sharded.wait(&stream, param, &mut params[param]).unwrap();
            let moved = params[param].iter().zip(bytemuck::cast_slice::<u8, bf16>(&before[param]));
            assert!(moved.filter(|(now, before)| now != before).count() > lens[param] / 2);
        }
        opens.send(()).unwrap();
        sharded.wait(&stream, 2, &mut params[2]).unwrap();
    });
}

/// A rank that ends in the middle of a step is an error for the other, in this call and in every later one.
#[test]
fn a_lost_rank_is_an_error_and_not_a_wait() {
    ranks::run(2, |comm| {
        let rank = comm.rank();
        let (stream, mut sharded, mut params) = about_to_step(&case(2), comm);
        if rank == 1 {
            return;
        }
        let mut list: Vec<&mut dyn Write<bf16>> = writes(&mut params);
        for _ in 0..2 {
            let error = sharded.step(&stream, &mut list, Unscale::Keep).unwrap_err();
            assert!(matches!(error, Error::Comm(_)), "{error}");
        }
    });
}
