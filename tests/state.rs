//! State files: resumption, what does not belong, and writers that are killed. Damage is in
//! `state_damage`.
//!
//! Not shown here, with the reason:
//!
//! | id | reason |
//! |---|---|
//! | P-02 | a full disk needs a file system of its own; every write's error leaves through one path, which removes the draft (shown with a folder that cannot be written) |
//! | P-03 | power loss cannot be staged; the order write, fsync, rename, fsync of the folder is in `file.rs` |
//! | P-12 | one file belongs to one optimizer; ranks compare steps in their own protocol |
//! | P-14 | two writers have drafts of their own and the last whole file wins |
//! | P-16 | the file is read, never mapped |
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::data::{Distribution, Rng};
use common::devices;
use common::files::*;
use common::memory::Values;
use halfstep::optim::*;
use halfstep::{Device, Error, Read, Storage, Stream, Write, bf16, f16};

const LENGTHS: [usize; 4] = [300, 0, 1, 70];

fn groups(rule: Rule) -> [Group; 2] {
    let tensor = |i: usize| Tensor::new(format!("layer.{i}/ä\"\\"), LENGTHS[i]);
    [
        Group::new(rule).tensors([tensor(0), tensor(1)]),
        Group::new(rule).tensors([tensor(2).decay_factor(0.0), tensor(3)]),
    ]
}

struct Run<P: Storage> {
    stream: Stream,
    optimizer: Optimizer<P, bf16>,
    params: Vec<Values<P>>,
}

impl<P: Storage> Run<P> {
    fn new(device: &Device, rule: Rule, config: Config) -> Self {
        let stream = device.stream().unwrap();
        let mut rng = Rng(5);
        let params: Vec<Values<P>> =
            LENGTHS.iter().map(|&len| Distribution::Normal.fill(&mut rng, len).into()).collect();
        let mut optimizer = Optimizer::new(device, &groups(rule), config).unwrap();
        let reads: Vec<&dyn Read<P>> = params.iter().map(|p| p as _).collect();
        optimizer.load_params(&stream, &reads).unwrap();
        Self { stream, optimizer, params }
    }

    /// Steps with gradients from a seed; every third overflows.
    fn steps(&mut self, from: u64, to: u64) {
        for step in from..to {
            let mut rng = Rng(step);
            let mut grads: Vec<Values<bf16>> = LENGTHS
                .iter()
                .map(|&len| Distribution::Normal.fill(&mut rng, len).into())
                .collect();
            if step % 3 == 2 {
                grads[2][0] = bf16::INFINITY;
            }
            let reads: Vec<Option<&dyn Read<bf16>>> = grads
                .iter()
                .enumerate()
                .map(|(i, g)| (step % 4 != 1 || i != 3).then_some(g as _))
                .collect();
            let mut writes: Vec<&mut dyn Write<P>> =
                self.params.iter_mut().map(|p| p as _).collect();
            self.optimizer.run(&self.stream, &mut writes, &reads).unwrap();
        }
    }

    fn bits(&mut self) -> Vec<u8> {
        let mut bits = Vec::new();
        for tensor in 0..LENGTHS.len() {
            bits.extend_from_slice(bytemuck::cast_slice::<P, u8>(&self.params[tensor]));
            let param = &self.params[tensor];
            let master = self.optimizer.master(&self.stream, tensor, param).unwrap();
            bits.extend_from_slice(bytemuck::cast_slice(&master));
            for slot in 0..self.optimizer.slots().len() {
                let values = self.optimizer.moment(&self.stream, slot, tensor).unwrap();
                bits.extend_from_slice(bytemuck::cast_slice(&values));
            }
            let counters = self.optimizer.counters(&self.stream, tensor).unwrap();
            bits.extend_from_slice(format!("{counters:?}").as_bytes());
        }
        bits.extend_from_slice(&self.optimizer.scale(&self.stream).unwrap().to_le_bytes());
        bits
    }
}

fn configs() -> [Config; 4] {
    let scaler = Scaler::Dynamic(Dynamic { interval: 2, ..Dynamic::MEGATRON });
    let plain = Config { scaler, seed: 9, ..Config::default() };
    [
        plain,
        Config { moments: Moments::Bf16, ..plain },
        Config { master: Master::Remainder, clip: Some(1.0), ..plain },
        Config { master: Master::Stochastic, moments: Moments::Bf16, ..plain },
    ]
}

fn rules() -> [Rule; 6] {
    [
        AdamW { amsgrad: true, ..AdamW::default() }.into(),
        Adam::default().into(),
        Sgd { momentum: 0.9, dampening: 0.5, ..Sgd::default() }.into(),
        Adagrad { initial_accumulator_value: 0.25, ..Adagrad::default() }.into(),
        Lamb::default().into(),
        Lion::default().into(),
    ]
}

/// P-15, S-14: save, load elsewhere, go on: as if nothing had happened. Also right after a skipped
/// step (steps 2 and 5), and before any.
#[test]
fn p15_resumed_runs_have_the_bits_of_uninterrupted_ones() {
    let folder = Folder::new("resume");
    for device in devices() {
        for rule in rules() {
            for config in configs() {
                let mut straight = Run::<bf16>::new(&device, rule, config);
                straight.steps(0, 9);
                for stop in [0, 1, 3, 6] {
                    let mut first = Run::<bf16>::new(&device, rule, config);
                    first.steps(0, stop);
                    first.optimizer.save(&first.stream, folder.file()).unwrap();
                    let mut second = Run::<bf16>::new(&device, rule, config);
                    second.steps(20, 22); // state that must go
                    second.params.clone_from(&first.params);
                    second.optimizer.load(&second.stream, folder.file()).unwrap();
                    assert_eq!(second.bits(), first.bits(), "{rule:?} {config:?} {stop}");
                    second.steps(stop, 9);
                    assert_eq!(second.bits(), straight.bits(), "{rule:?} {config:?} {stop}");
                }
            }
        }
    }
}

/// Learning rates are state; parameters can be made from masters.
#[test]
fn rates_are_restored_and_parameters_follow_masters() {
    let folder = Folder::new("rates");
    let device = Device::cpu();
    let rule: Rule = AdamW::default().into();
    let mut run = Run::<f16>::new(&device, rule, Config::default());
    run.optimizer.set_lr(1, 0.125).unwrap();
    run.steps(0, 2);
    run.optimizer.save(&run.stream, folder.file()).unwrap();
    // Fresh masters have no values: loading gives them some.
    let mut other = Optimizer::<f16, bf16>::new(&device, &groups(rule), Config::default()).unwrap();
    other.load(&run.stream, folder.file()).unwrap();
    assert_eq!(other.rule(1).unwrap().lr(), 0.125);
    let mut params: Vec<Values<f16>> =
        LENGTHS.iter().map(|&len| vec![f16::NAN; len].into()).collect();
    let mut writes: Vec<&mut dyn Write<f16>> = params.iter_mut().map(|p| p as _).collect();
    other.write_params(&run.stream, &mut writes).unwrap();
    assert_eq!(params, run.params);
}

/// The file is a safetensors file for everyone else, with raw types.
#[test]
fn any_safetensors_reader_reads_it() {
    let folder = Folder::new("reader");
    let device = Device::cpu();
    let config = Config { master: Master::Remainder, moments: Moments::Bf16, ..Config::default() };
    let mut run = Run::<bf16>::new(&device, AdamW::default().into(), config);
    run.steps(0, 2);
    run.optimizer.save(&run.stream, folder.file()).unwrap();
    let bytes = fs::read(folder.file()).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 3 * LENGTHS.len());
    let moments = file.tensor("layer.3/ä\"\\/exp_avg_sq").unwrap();
    assert_eq!((moments.dtype(), moments.shape()), (safetensors::Dtype::BF16, &[70][..]));
    let stored: Vec<bf16> =
        moments.data().chunks_exact(2).map(bytemuck::pod_read_unaligned).collect();
    let found = run.optimizer.moment(&run.stream, 1, 3).unwrap();
    assert!(stored.iter().zip(&found).all(|(a, b)| a.to_f32() == *b));
    let remainder = file.tensor("layer.0/ä\"\\/remainder").unwrap();
    assert_eq!(remainder.dtype(), safetensors::Dtype::U16);
}

#[test]
fn p09_missing_and_unexpected_tensors_are_listed() {
    let folder = Folder::new("names");
    let (stream, _, _, moments) = small(&folder);
    let device = stream.device().clone();
    let group = Group::new(AdamW::default()).tensors([Tensor::new("a", 90), Tensor::new("c", 3)]);
    let mut other = Optimizer::<f32, bf16>::new(&device, &[group], Config::default()).unwrap();
    let error = other.load(&stream, folder.file()).unwrap_err();
    assert!(error.to_string().contains("missing: c; unexpected: b"), "{error}");
    let group = Group::new(AdamW::default()).tensor(Tensor::new("a", 90));
    let mut fewer = Optimizer::<f32, bf16>::new(&device, &[group], Config::default()).unwrap();
    let error = fewer.load(&stream, folder.file()).unwrap_err();
    assert!(error.to_string().ends_with("found unexpected: b"), "{error}");
    assert_eq!(other.moment(&stream, 0, 0).unwrap(), [0.0; 90]);
    let options = LoadOptions { strict: false, ..LoadOptions::default() };
    let loaded = other.load_with(&stream, folder.file(), options).unwrap();
    assert_eq!((loaded.missing, loaded.unexpected), (vec!["c".into()], vec!["b".into()]));
    assert_eq!(other.moment(&stream, 0, 0).unwrap(), moments);
    assert_eq!(other.counters(&stream, 0).unwrap().step, 1);
    assert_eq!(other.counters(&stream, 1).unwrap().step, 0);
}

#[test]
fn p10_other_lengths_types_and_groups_are_refused() {
    let folder = Folder::new("shape");
    let (stream, ..) = small(&folder);
    let device = stream.device().clone();
    let two = |rule: Rule, a: usize| {
        [Group::new(rule).tensors([Tensor::new("a", a), Tensor::new("b", 40)])]
    };
    let adamw = Rule::from(AdamW::default());
    let plain = Config::default();
    let cases = [
        (two(adamw, 91), plain, "a"),
        (two(AdamW { amsgrad: true, ..AdamW::default() }.into(), 90), plain, "slots"),
        (two(Adam::default().into(), 90), plain, "rule"),
        (two(adamw, 90), Config { moments: Moments::Bf16, ..plain }, "moments"),
        (two(adamw, 90), Config { seed: 1, ..plain }, "seed"),
        (two(adamw, 90), Config { scaler: Scaler::Fixed(2.0), ..plain }, "scale"),
    ];
    for (groups, config, item) in cases {
        let mut other = Optimizer::<f32, bf16>::new(&device, &groups, config).unwrap();
        let error = other.load(&stream, folder.file()).unwrap_err();
        let Error::Checkpoint { item: found, .. } = &error else { panic!("{error}") };
        assert_eq!(found, item, "{error}");
    }
    let [group] = two(adamw, 90);
    let groups = [group, Group::new(adamw)];
    let mut other = Optimizer::<f32, bf16>::new(&device, &groups, plain).unwrap();
    assert!(
        other.load(&stream, folder.file()).unwrap_err().to_string().contains("rates of 2 groups")
    );
}

/// Rates are restored by group: where tensors are in other groups, they would be those of other tensors.
#[test]
fn tensors_that_had_another_rate_are_refused() {
    let folder = Folder::new("regrouped");
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let new = |names: [&str; 3], first: usize| {
        let group = |lr, names: &[&str]| {
            let tensors = names.iter().map(|&name| Tensor::new(name, name.len() - 1));
            Group::new(Lion { lr, ..Lion::default() }).tensors(tensors)
        };
        let groups = [group(0.5, &names[..first]), group(0.25, &names[first..])];
        Optimizer::<f32, f32>::new(&device, &groups, Config::default()).unwrap()
    };
    let mut optimizer = new(["aaa", "b", "cc"], 1); // b is empty
    optimizer.save(&stream, folder.file()).unwrap();
    new(["aaa", "cc", "b"], 1).load(&stream, folder.file()).unwrap();
    for (names, first, name) in [(["b", "cc", "aaa"], 2, "aaa"), (["aaa", "b", "cc"], 2, "b")] {
        let mut other = new(names, first);
        let error = other.load(&stream, folder.file()).unwrap_err();
        let Error::Checkpoint { item, expected, .. } = &error else { panic!("{error}") };
        assert_eq!((item.as_str(), &expected[..9]), (name, "in groups"), "{error}");
        let options = LoadOptions { strict: false, ..LoadOptions::default() };
        other.load_with(&stream, folder.file(), options).unwrap();
    }
    optimizer.set_lr(1, 0.5).unwrap();
    optimizer.save(&stream, folder.file()).unwrap();
    new(["b", "cc", "aaa"], 2).load(&stream, folder.file()).unwrap();
}

/// What a file brings is counts, not a step: there is none to report.
#[test]
fn a_report_is_of_a_step_made_here() {
    let folder = Folder::new("report");
    let (stream, mut stepped, ..) = small(&folder);
    let group = Group::new(AdamW::default()).tensors([Tensor::new("a", 90), Tensor::new("b", 40)]);
    let mut fresh = Optimizer::new(stream.device(), &[group], Config::default()).unwrap();
    for optimizer in [&mut stepped, &mut fresh] {
        optimizer.load(&stream, folder.file()).unwrap();
        let error = optimizer.report(&stream).unwrap_err();
        assert!(matches!(error, Error::State { op: "optim::report", .. }), "{error}");
        let (mut a, mut b) = (vec![1.0f32; 90], vec![2.0f32; 40]);
        let g = vec![bf16::ONE; 90];
        optimizer.run(&stream, &mut [&mut a, &mut b], &[Some(&g), None]).unwrap();
        let report = optimizer.report(&stream).unwrap();
        assert_eq!((report.attempts, report.applied, report.scale), (2, 2, 1.0));
    }
}

/// A constant scale is no history that a dynamic one could go on from: 1 would lose f16 gradients for
/// thousands of steps.
#[test]
fn a_dynamic_scale_does_not_start_from_a_constant_one() {
    let folder = Folder::new("constant");
    let (stream, ..) = small(&folder); // without a scaler
    let groups =
        [Group::new(AdamW::default()).tensors([Tensor::new("a", 90), Tensor::new("b", 40)])];
    let rules = Dynamic { interval: 1, hysteresis: 2, ..Dynamic::PYTORCH };
    let config = Config { scaler: Scaler::Dynamic(rules), ..Config::default() };
    let mut optimizer = Optimizer::<f32, bf16>::new(stream.device(), &groups, config).unwrap();
    optimizer.load(&stream, folder.file()).unwrap();
    assert_eq!(optimizer.scale(&stream).unwrap(), 65536.0);
    let (mut a, mut b, g) = (vec![1.0f32; 90], vec![2.0f32; 40], vec![bf16::ONE; 90]);
    optimizer.run(&stream, &mut [&mut a, &mut b], &[Some(&g), None]).unwrap();
    assert_eq!(optimizer.report(&stream).unwrap().attempts, 2, "counts go on");
    // Its own history it goes on from.
    optimizer.save(&stream, folder.file()).unwrap();
    let mut other = Optimizer::<f32, bf16>::new(stream.device(), &groups, config).unwrap();
    other.load(&stream, folder.file()).unwrap();
    assert_eq!(other.scale(&stream).unwrap(), 131_072.0);
}

/// A file of masters that never got values has none to give: they are not loaded as zeros.
#[test]
fn masters_without_values_stay_without() {
    let folder = Folder::new("valueless");
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let groups = [Group::new(AdamW::default()).tensor(Tensor::new("a", 5))];
    let new = || Optimizer::<bf16, bf16>::new(&device, &groups, Config::default()).unwrap();
    new().save(&stream, folder.file()).unwrap();
    let (mut w, g) = (vec![bf16::ONE; 5], vec![bf16::ONE; 5]);
    let mut optimizer = new();
    optimizer.load_params(&stream, &[&w]).unwrap();
    optimizer.load(&stream, folder.file()).unwrap();
    let error = optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    let error = optimizer.write_params(&stream, &mut [&mut w]).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    let error = optimizer.master(&stream, 0, &w).unwrap_err();
    assert!(matches!(error, Error::State { op: "optim::master", .. }), "{error}");
    assert_eq!(w, [bf16::ONE; 5]);
    // Of tensors that the file lacks, nothing has changed.
    let groups = [Group::new(AdamW::default()).tensor(Tensor::new("b", 5))];
    let mut other = Optimizer::<bf16, bf16>::new(&device, &groups, Config::default()).unwrap();
    other.load_params(&stream, &[&w]).unwrap();
    let options = LoadOptions { strict: false, ..LoadOptions::default() };
    other.load_with(&stream, folder.file(), options).unwrap();
    other.write_params(&stream, &mut [&mut w]).unwrap();
    assert_eq!(w, [bf16::ONE; 5]);
}

/// P-13, O-34.
#[test]
fn p13_state_that_is_not_finite_loads_only_when_allowed() {
    let folder = Folder::new("finite");
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let groups = [Group::new(AdamW::default()).tensor(Tensor::new("a", 5))];
    let config = Config { check_finite: false, ..Config::default() };
    let mut optimizer = Optimizer::<f32, f32>::new(&device, &groups, config).unwrap();
    let (mut w, g) = (vec![1.0f32; 5], vec![1.0, f32::NAN, 1.0, 1.0, 1.0]);
    optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap();
    optimizer.save(&stream, folder.file()).unwrap();
    let error = optimizer.load(&stream, folder.file()).unwrap_err();
    assert!(error.to_string().contains("a/exp_avg: expected finite values"), "{error}");
    let options = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    optimizer.load_with(&stream, folder.file(), options).unwrap();
}

/// P-01, P-02, P-17: what is at the name is whole, and nothing is left beside it.
#[test]
fn p01_the_old_file_stays_until_the_new_one_is_whole() {
    let folder = Folder::new("atomic");
    let (stream, optimizer, bytes, _) = small(&folder);
    // A draft that a killed process left is not the file and does not disturb.
    fs::write(folder.0.join(".state.safetensors.1-0.tmp"), &bytes[..100]).unwrap();
    optimizer.save(&stream, folder.file()).unwrap();
    assert_eq!(fs::read(folder.file()).unwrap(), bytes);
    assert_eq!(folder.names().len(), 2);
    // Not a file, not a folder that is there.
    for path in [folder.0.clone(), folder.0.join("no/state"), PathBuf::from("/"), PathBuf::new()] {
        let error = optimizer.save(&stream, &path).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
    assert_eq!(folder.names().len(), 2);
    assert!(matches!(
        small(&folder).1.load(&stream, folder.0.join("none")),
        Err(Error::Device { .. } | Error::Io { .. })
    ));
}

#[cfg(unix)]
#[test]
fn p03_p17_modes_and_links_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new("mode");
    let (stream, optimizer, bytes, _) = small(&folder);
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.0.join("link");
    symlink(folder.file(), &link).unwrap();
    optimizer.save(&stream, &link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read(folder.file()).unwrap(), bytes);
    // Names of tensors are data, never paths.
    let group = Group::new(Lion::default()).tensor(Tensor::new("../../etc/x", 3));
    let named = Optimizer::<f32, f32>::new(stream.device(), &[group], Config::default()).unwrap();
    named.save(&stream, folder.file()).unwrap();
    assert_eq!(folder.names().len(), 2);
}

/// The error names what was asked for, not the draft beside it.
#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::new("missing");
    let group = Group::new(AdamW::default()).tensor(Tensor::new("w", 9));
    let device = Device::cpu();
    let optimizer = Optimizer::<f32, f32>::new(&device, &[group], Config::default()).unwrap();
    let target = folder.0.join("none").join("state");
    let error = optimizer.save(&device.stream().unwrap(), &target).unwrap_err();
    let Error::Io { path, .. } = &error else { panic!("{error}") };
    assert_eq!(path, &target.display().to_string());
}

/// Between `control` and `step` the state is half a step ahead.
#[test]
fn half_a_step_is_not_saved() {
    let folder = Folder::new("half");
    let (stream, mut optimizer, _, _) = small(&folder);
    let (g, h) = (vec![bf16::ONE; 90], vec![bf16::ONE; 40]);
    let grads: [Option<&dyn Read<bf16>>; 2] = [Some(&g), Some(&h)];
    optimizer.stats(&stream, &grads).unwrap();
    optimizer.control(&stream, Source::Own, &grads).unwrap();
    assert!(matches!(optimizer.save(&stream, folder.file()), Err(Error::State { .. })));
    assert!(matches!(optimizer.load(&stream, folder.file()), Err(Error::State { .. })));
}

/// 21,000 tensors: neither header nor look-ups grow faster than the list.
#[test]
fn many_tensors_save_and_load() {
    let folder = Folder::new("many");
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let tensors = (0..21_000).map(|i| Tensor::new(format!("t{i}"), i % 3));
    let groups = [Group::new(Lion::default()).tensors(tensors)];
    let mut optimizer = Optimizer::<f32, bf16>::new(&device, &groups, Config::default()).unwrap();
    optimizer.save(&stream, folder.file()).unwrap();
    optimizer.load(&stream, folder.file()).unwrap();
}

/// P-01: a process that is killed while it saves, again and again, leaves a whole file.
#[test]
fn p01_killed_writers_leave_a_whole_file() {
    const CHILD: &str = "HALFSTEP_TEST_SAVES_TO";
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let group = || [Group::new(AdamW::default()).tensor(Tensor::new("a", 200_000))];
    let mut optimizer = Optimizer::<f32, bf16>::new(&device, &group(), Config::default()).unwrap();
    if let Some(path) = std::env::var_os(CHILD) {
        loop {
            optimizer.save(&stream, &path).unwrap();
        }
    }
    let folder = Folder::new("kill");
    optimizer.save(&stream, folder.file()).unwrap();
    for round in 0..10 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["p01_killed_writers_leave_a_whole_file", "--exact"])
            .env(CHILD, folder.file())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        optimizer.load(&stream, folder.file()).unwrap();
    }
}
