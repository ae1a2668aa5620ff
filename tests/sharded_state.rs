//! Files of sharded steps: those of an optimizer of everything, and read on any number of ranks.
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

mod common;

use std::fs;

use common::files::Folder;
use common::memory::Values;
use common::optim::{plain, rules, writes};
use common::sharded::{Case, Outcome, bits, open, run, sharded, whole};
use common::{cpu, ranks};
use halfstep::optim::{AdamW, Config, Dynamic, Master, Moments, Rule, Scaler};
use halfstep::reduce::{Communicator, Sharded, Unscale};
use halfstep::{Error, Storage, bf16, f16};

/// Odd lengths of 16-bit values, so that arrays do not end at multiples of 4 bytes; the fourth is several
/// blocks of a mebibyte in f32.
const LENS: [usize; 7] = [3, 40_001, 0, 600_000, 1, 16_384, 77];

fn scaled(master: Master, moments: Moments) -> Config {
    let scaler = Scaler::Dynamic(Dynamic { init: 8.0, interval: 2, ..Dynamic::PYTORCH });
    Config { master, moments, scaler, seed: 9, clip: Some(0.1), ..Config::default() }
}

fn adamw() -> Rule {
    AdamW { lr: 0.01, ..AdamW::default() }.into()
}

/// What any number of ranks saves is, byte by byte, what one optimizer saves.
fn same_file<P: Storage>(case: &Case, name: &str) {
    let folder = Folder::new(name);
    let (one, many) = (folder.0.join("one"), folder.0.join("many"));
    whole::<P, bf16>(case, &cpu(1), |optimizer, stream| optimizer.save(stream, &one).unwrap());
    sharded::<P, bf16>(case, &cpu(1), |sharded, stream, rank| {
        // Only rank 0's path is used.
        let path = if rank == 0 { many.clone() } else { folder.0.join("nobody") };
        sharded.save(stream, path).unwrap();
    });
    assert!(fs::read(&one).unwrap() == fs::read(&many).unwrap(), "{name}: {:?}", case.rule);
    assert_eq!(folder.names().len(), 2, "{:?}", folder.names());
}

#[test]
fn a_file_is_that_of_one_optimizer() {
    for rule in rules() {
        let case = Case::new(3, &LENS, rule, scaled(Master::Remainder, Moments::Bf16));
        same_file::<bf16>(&Case { nan: Some((1, 2, 3)), reversed: true, ..case }, "rules");
    }
    for ranks in 1..=5 {
        same_file::<bf16>(&Case::new(ranks, &LENS, adamw(), Config::default()), "ranks");
        let config = Config { moments: Moments::Bf16, ..Config::default() };
        same_file::<f32>(&Case::new(ranks, &LENS, adamw(), config), "own");
    }
    for lens in [&[0, 0][..], &[]] {
        same_file::<bf16>(&Case::new(3, lens, adamw(), Config::default()), "nothing");
    }
}

/// Steps `steps` on the case's ranks, from the parameters and the file that are there, which the ranks
/// leave behind; the parameters after each step.
fn resume<P: Storage>(
    case: &Case,
    folder: &Folder,
    steps: std::ops::Range<usize>,
    params: &mut Vec<Vec<P>>,
) -> Outcome {
    let first = steps.start == 0;
    let mut all = ranks::run(case.ranks, |comm| {
        let rank = comm.rank();
        let stream = cpu(1).stream().unwrap();
        let mut sharded: Sharded<P, bf16> = open(case, stream.device(), comm);
        let mut params: Vec<Values<P>> = params.iter().cloned().map(Values::from).collect();
        if first {
            sharded.load_params(&stream, &plain(&params)).unwrap();
        } else {
            sharded.load(&stream, folder.file()).unwrap();
            sharded.write_params(&stream, &mut writes(&mut params)).unwrap();
            sharded.wait_all(&stream, &mut writes(&mut params)).unwrap();
        }
        let mut outcome = Outcome { params: Vec::new(), reports: Vec::new() };
        run(case, &mut sharded, &stream, rank, steps.clone(), &mut params, &mut outcome);
        sharded.save(&stream, folder.file()).unwrap();
        (outcome, params.iter().map(|param| param.to_vec()).collect::<Vec<_>>())
    });
    let (outcome, last) = all.swap_remove(0);
    assert!(all.iter().all(|(other, _)| *other == outcome), "ranks differ");
    *params = last;
    outcome
}

/// Two steps each on 2, 3 and 1 ranks, and six steps of one optimizer.
fn resharded<P: Storage>(rule: Rule, config: Config) {
    let folder = Folder::new(&format!("resharded-{}-{}", rule.name(), P::DTYPE));
    let case = |ranks| Case {
        alike: true,
        steps: 6,
        nan: Some((3, 0, 3)),
        ..Case::new(ranks, &LENS, rule, config)
    };
    let one = folder.0.join("one");
    let expected = whole::<P, bf16>(&case(1), &cpu(1), |optimizer, stream| {
        optimizer.save(stream, &one).unwrap();
    });
    let mut params: Vec<Vec<P>> = case(1).params().iter().map(|param| param.to_vec()).collect();
    let mut found = Outcome { params: Vec::new(), reports: Vec::new() };
    for (ranks, steps) in [(2, 0..2), (3, 2..4), (1, 4..6)] {
        let outcome = resume(&case(ranks), &folder, steps, &mut params);
        found.params.extend(outcome.params);
        found.reports.extend(outcome.reports);
    }
    assert_eq!(found.reports, expected[0].reports, "{rule:?}");
    assert!(found == expected[0], "{rule:?}, {config:?}: other bits");
    let last = &expected[0].params[5 * LENS.len()..];
    assert!(bits(&case(1).params::<P>()) != last, "nothing moved");
    assert!(fs::read(&one).unwrap() == fs::read(folder.file()).unwrap(), "{rule:?}: other files");
}

#[test]
fn two_ranks_then_three_then_one_go_on_as_one_would() {
    for rule in rules() {
        resharded::<bf16>(rule, scaled(Master::F32, Moments::F32));
    }
    resharded::<bf16>(adamw(), scaled(Master::Remainder, Moments::Bf16));
    resharded::<f16>(adamw(), scaled(Master::Stochastic, Moments::Bf16));
    resharded::<f32>(adamw(), scaled(Master::F32, Moments::Bf16));
}

/// A file that one rank cannot load, or that differs on one, is loaded on none; a path where rank 0
/// cannot write is an error on all. Steps go on.
#[test]
fn ranks_load_and_save_together_or_not_at_all() {
    let folder = Folder::new("together");
    let case = Case::new(3, &LENS, adamw(), Config::default());
    let other = folder.0.join("other");
    whole::<bf16, bf16>(&case, &cpu(1), |optimizer, stream| {
        optimizer.save(stream, folder.file()).unwrap();
        optimizer.set_lr(0, 0.5).unwrap();
        optimizer.save(stream, &other).unwrap();
    });
    let expected = whole::<bf16, bf16>(&case, &cpu(1), |_, _| {});
    let found = ranks::run(3, |comm| {
        let rank = comm.rank();
        let stream = cpu(1).stream().unwrap();
        let mut sharded: Sharded<bf16, bf16> = open(&case, stream.device(), comm);
        let mut params = case.params::<bf16>();
        sharded.load_params(&stream, &plain(&params)).unwrap();

        let path = if rank == 2 { folder.0.join("none") } else { folder.file() };
        let error = sharded.load(&stream, path).unwrap_err();
        match (rank, &error) {
            (2, Error::Io { .. }) => {}
            (0 | 1, Error::Checkpoint { path, expected, found, .. }) => {
                assert_eq!(*path, folder.file().display().to_string());
                assert!(expected.contains("fits"), "{expected}");
                assert_eq!(found, "none on rank 2");
            }
            _ => panic!("{rank}: {error}"),
        }
        let path = if rank == 1 { other.clone() } else { folder.file() };
        let error = sharded.load(&stream, path).unwrap_err();
        assert!(
            matches!(&error, Error::Checkpoint { expected, .. } if expected.contains("rank 0's"))
        );
        let error = sharded.save(&stream, folder.0.join("no folder").join("file")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");

        let grads = case.gradients::<bf16>(rank, 0);
        sharded.set_weight(case.weight(rank)).unwrap();
        sharded.ready(&stream, 0, &grads[0]).unwrap();
        for error in [
            sharded.save(&stream, folder.file()).unwrap_err(),
            sharded.load(&stream, folder.file()).unwrap_err(),
            sharded.write_params(&stream, &mut writes(&mut params)).unwrap_err(),
        ] {
            assert!(matches!(error, Error::State { .. }), "{error}");
        }
        for param in (1..LENS.len()).rev() {
            sharded.ready(&stream, param, &grads[param]).unwrap();
        }
        sharded.step(&stream, &mut writes(&mut params), Unscale::Keep).unwrap();
        let report = format!("{:?}", sharded.report(&stream).unwrap());
        // State can be saved while parameters are on their way; loading it changes nothing.
        sharded.save(&stream, folder.0.join("after")).unwrap();
        sharded.wait_all(&stream, &mut writes(&mut params)).unwrap();
        sharded.load(&stream, folder.0.join("after")).unwrap();
        let mut outcome = Outcome { params: bits(&params), reports: vec![report] };
        run(&case, &mut sharded, &stream, rank, 1..3, &mut params, &mut outcome);
        outcome
    });
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.params == expected.params);
        assert_eq!(found.reports, expected.reports);
    }
}
