//! What a step says of its time: the table, the timeline, and the costs that plans are made of.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::reduction::{params_from, refs};
use common::{cpu, ranks};
use halfstep::reduce::{
    Attribution, BucketPlan, Communicator, Config, Link, Phase, Reduced, Reducer, Sum, Trace,
    Unscale, calibrate,
};
use halfstep::{Dtype, Error, bf16};

/// Three steps on each of two ranks, the second of which is late.
fn steps(views: bool) -> Vec<Vec<Reduced>> {
    let plan = BucketPlan::ddp(&params_from(&[70_000, 300, 5]), Dtype::F32, 1, 1).unwrap();
    ranks::run(2, |comm| {
        let rank = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let config = Config { views, ..Config::default() };
        let mut reducer =
            Reducer::<f32>::new(&device, plan.clone(), Box::new(comm), config).unwrap();
        let mut tensors = vec![vec![1.0f32; 70_000], vec![1.0; 300], vec![1.0; 5]];
        let mut steps = Vec::new();
        for _ in 0..3 {
            if rank == 1 {
                std::thread::sleep(Duration::from_millis(20));
            }
            for (param, tensor) in tensors.iter().enumerate().rev() {
                match views {
                    true => reducer.ready_view(&stream, param).unwrap(),
                    false => reducer.ready(&stream, param, tensor).unwrap(),
                }
            }
            steps.push(match views {
                true => reducer.finish_views(&stream, Unscale::Keep).unwrap(),
                false => reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap(),
            });
        }
        steps
    })
}

/// Each bucket's times are the sums of its events, and lateness is not booked as the wire's time.
#[test]
fn times_are_sums_of_events() {
    for views in [true, false] {
        let all = steps(views);
        for step in all.iter().flatten() {
            assert_eq!(step.times.len(), 3);
            for (bucket, times) in step.times.iter().enumerate() {
                assert!(times.bytes > 0);
                for phase in Phase::ALL {
                    let events =
                        step.events.iter().filter(|e| (e.bucket, e.phase) == (bucket, phase));
                    assert_eq!(events.map(|e| e.time).sum::<Duration>(), times.phase(phase));
                }
            }
            assert!(step.events.is_sorted_by_key(|event| event.start));
            assert!(step.events.iter().any(|event| event.phase == Phase::Sum));
            assert_eq!(step.events.iter().any(|event| event.phase == Phase::Wire), !views);
        }
        let skew = |rank: usize| -> Duration {
            all[rank].iter().flat_map(|step| &step.times).map(|times| times.skew).sum()
        };
        assert!(skew(0) > skew(1), "the early rank waits: {:?} {:?}", skew(0), skew(1));
    }
}

#[test]
fn the_table_has_means() {
    let steps = steps(false).remove(0);
    let mut attribution = Attribution::default();
    steps.iter().for_each(|step| attribution.add(step));
    assert_eq!(attribution.steps(), 3);
    let means = attribution.means();
    for (bucket, mean) in means.iter().enumerate() {
        for phase in Phase::ALL {
            let sum: Duration = steps.iter().map(|step| step.times[bucket].phase(phase)).sum();
            assert_eq!(mean.phase(phase), sum / 3);
        }
        assert_eq!(mean.bytes, steps[0].times[bucket].bytes);
    }
    let total = attribution.total();
    assert_eq!(total.skew, means.iter().map(|mean| mean.skew).sum());
    assert_eq!(total.ready, means.iter().map(|mean| mean.ready).max().unwrap());
    let table = attribution.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 6, "{table}");
    let columns = |line: &str| line.split_whitespace().count();
    assert!(lines[..5].iter().all(|line| columns(line) == columns(lines[0])), "{table}");
    for name in Phase::ALL.map(Phase::name) {
        assert!(lines[0].contains(name), "{table}");
    }
    assert!(lines[4].trim_start().starts_with("all"));
    // A step's own table is that of one step.
    let mut one = Attribution::default();
    one.add(&steps[0]);
    assert_eq!(steps[0].to_string(), one.to_string());
    // Nothing to print is no failure.
    assert!(Attribution::default().to_string().contains("all"));
}

/// The file is what browsers read: an object with complete events and names.
#[test]
fn the_timeline_is_json() {
    let ranks = steps(true);
    let mut all = Trace::default();
    let mut expected = 0;
    for (rank, steps) in ranks.iter().enumerate() {
        let mut trace = Trace::new(rank);
        steps.iter().for_each(|step| trace.add(step));
        let events = steps.iter().flat_map(|step| &step.events);
        expected += events.filter(|event| event.time > Duration::ZERO).count();
        all.append(trace);
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("reduce_trace.json");
    all.save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = file["traceEvents"].as_array().unwrap();
    let names: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    let mut complete = 0;
    for event in events {
        let rank = event["pid"].as_u64().unwrap();
        assert!(rank < 2 && event["tid"].as_u64().unwrap() < 2);
        if event["ph"] == "M" {
            continue;
        }
        complete += 1;
        assert_eq!(event["ph"], "X");
        assert!(names.contains(&event["cat"].as_str().unwrap()), "{event}");
        assert!(event["dur"].as_f64().unwrap() > 0.0 && event["ts"].as_f64().unwrap() > 1e15);
        assert!(event["args"]["step"].as_u64().unwrap() < 3 && event["args"]["bytes"].is_u64());
        // What runs beside the backward pass is drawn beside it.
        let beside = ["skew", "wire", "sum"].contains(&event["cat"].as_str().unwrap());
        assert_eq!(event["tid"] == 1, beside, "{event}");
    }
    assert_eq!(complete, expected);
    assert_eq!(events.len() - complete, 6, "a name for each rank and thread");
    let error =
        all.save(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no/folder")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn lines_are_fitted() {
    for (alpha, beta) in [(2e-5, 1e-9), (0.0, 3e-10), (1e-3, 0.0)] {
        let time = |bytes: usize| (bytes, alpha + beta * bytes as f64);
        let link = Link::fit(&[time(16 << 10), time(1 << 20), time(16 << 20)]).unwrap();
        assert!((link.alpha - alpha).abs() <= 1e-9 * alpha.max(1e-5), "{link:?}");
        assert!((link.beta - beta).abs() <= 1e-9 * beta.max(1e-10), "{link:?}");
    }
    // Relative errors count: the small message's is not lost beside the large one's.
    let link = Link::fit(&[(1000, 1e-5), (1_000_000, 1.2e-3), (100_000_000, 0.1)]).unwrap();
    assert!((link.seconds(1000) / 1e-5 - 1.0).abs() < 0.2, "{link:?}");
    // Neither part is below 0, whatever was measured.
    let rising = Link::fit(&[(10, 1e-6), (100, 1e-4)]).unwrap();
    assert!(rising.alpha == 0.0 && rising.beta > 0.0, "{rising:?}");
    let falling = Link::fit(&[(10, 1e-4), (1000, 1e-6)]).unwrap();
    assert!(falling.beta == 0.0 && falling.alpha > 0.0, "{falling:?}");
    for bad in [
        &[][..],
        &[(10, 1.0)],
        &[(10, 1.0), (10, 2.0)],
        &[(1, 0.0), (2, 1.0)],
        &[(1, f64::NAN), (2, 1.0)],
    ] {
        let error = Link::fit(bad).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{bad:?}: {error}");
    }
}

/// All ranks have rank 0's numbers, to the bit, whatever gradients are sent in.
#[test]
fn ranks_agree_on_what_was_measured() {
    for (views, wire, sum) in [
        (true, Dtype::F32, Sum::RankOrder),
        (false, Dtype::Bf16, Sum::Communicator),
        (true, Dtype::F16, Sum::OrderFree),
        (false, Dtype::F32, Sum::Int8),
    ] {
        let links = ranks::run(3, |comm| {
            if comm.rank() == 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            let config = Config { views, sum, scale: 8.0, allow_unused: true, ..Config::default() };
            match wire {
                Dtype::Bf16 => calibrate::<bf16>(&cpu(1), Box::new(comm), wire, &config).unwrap(),
                _ => calibrate::<f32>(&cpu(1), Box::new(comm), wire, &config).unwrap(),
            }
        });
        assert!(links.iter().all(|link| *link == links[0]), "{links:?}");
        let link = links[0];
        assert!(link.alpha.is_finite() && link.beta.is_finite() && link.seconds(1 << 24) > 0.0);
        let ready = [1e-3, 0.0];
        BucketPlan::optimal(&params_from(&[100, 100]), wire, &ready, link).unwrap();
    }
}
