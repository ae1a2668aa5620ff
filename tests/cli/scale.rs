//! `halfstep scale`.

use super::{halfstep, text};

/// Every row is there, the sum of its parts, and the same for the same seed; the curve is drawn.
#[test]
fn scale_prints_a_table_and_draws_it() {
    let folder = std::env::temp_dir().join(format!("halfstep-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let svg = folder.join("scale.svg");
    let base = ["scale", "--model", "wav2vec2-base", "--machine", "juwels-booster"];
    let run = |more: &[&str]| {
        let output = halfstep(&[&base[..], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let out = run(&["--ranks", "1..4096", "--svg", svg.to_str().unwrap()]);
    assert!(
        out.contains("40 % of 312.0 TFLOP/s") && out.contains("more than the machine has (3744)")
    );
    for ranks in (0..=12).map(|power| 1usize << power) {
        let rows = out.lines().filter(|line| line.trim_start().starts_with(&format!("{ranks}")));
        assert!(rows.count() >= 2, "{ranks} is in both tables: {out}");
    }
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("wav2vec2-base on juwels-booster"));
    assert!(drawn.contains(">1</text>") && drawn.contains(">4096</text>"));
    assert!(drawn.contains("<title>halfstep: 4096 ranks, "));
    std::fs::remove_dir_all(folder).unwrap();

    let json = run(&["--ranks", "4,64", "--json", "--strategy", "ddp", "--baseline", "4"]);
    assert_eq!(json, run(&["--ranks", "4,64", "--json", "--strategy", "ddp", "--baseline", "4"]));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rows = value["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["efficiency"], 1.0);
    for row in rows {
        let part = |name: &str| row[name].as_f64().unwrap();
        let sum = part("compute_seconds") + part("waiting_seconds") + part("exposed_seconds");
        assert!((sum - part("step_seconds")).abs() < 1e-12 && part("efficiency") <= 1.0);
        assert!(part("exchange_seconds") >= part("exposed_seconds"));
    }
    assert_eq!(value["strategies"].as_object().unwrap().len(), 5);
}

/// Which exchange is for how many ranks, in words and as data; README says the same.
#[test]
fn scale_says_from_where_on_nodes_sum_first() {
    let run = |machine: &str, more: &[&str]| {
        let base = ["scale", "--model", "wav2vec2-base", "--machine", machine];
        text(&halfstep(&[&base[..], more].concat()).stdout)
    };
    for (machine, clear) in [("juwels-booster", 256), ("lumi", 128)] {
        let line = format!(
            "from 16 ranks on: `reduce::Hierarchical`, by more than 1 % of a step from {clear} on"
        );
        let out = run(machine, &[]);
        assert!(out.contains(&line) && !out.contains("not do yet"), "{out}");
        let value: serde_json::Value = serde_json::from_str(&run(machine, &["--json"])).unwrap();
        assert_eq!(value["two_level_from_ranks"], 16);
        assert_eq!(value["two_level_clearly_from_ranks"], clear);
    }
    assert!(run("lumi", &["--ranks", "2..8"]).contains("`reduce::Hierarchical` is not the faster"));
}

/// What was measured takes the place of what is nominal between nodes, says so, and counts.
#[test]
fn scale_takes_measured_links() {
    let run = |more: &[&str]| -> serde_json::Value {
        let base = ["scale", "--model", "wav2vec2-base", "--machine", "juwels-booster", "--json"];
        let output = halfstep(&[&base[..], &["--ranks", "4,64"], more].concat());
        serde_json::from_str(&text(&output.stdout)).unwrap()
    };
    let exchange = |value: &serde_json::Value, row: usize| {
        value["rows"][row]["exchange_seconds"].as_f64().unwrap()
    };
    let nominal = run(&[]);
    let slow = run(&["--alpha", "120", "--rate", "1.5"]);
    let fast = run(&["--alpha", "12", "--rate", "150"]);
    let said = "between all ranks of two nodes 120.0 µs and 1.50 GB/s an exchange";
    assert!(slow["assumptions"].to_string().contains(said), "{}", slow["assumptions"]);
    assert!(!nominal["assumptions"].to_string().contains("measured"));
    assert!(exchange(&slow, 1) > 2.0 * exchange(&nominal, 1));
    assert!(exchange(&fast, 1) < exchange(&nominal, 1));
    assert_eq!(exchange(&slow, 0), exchange(&nominal, 0), "nothing leaves one node");
}

/// One line each, no panic.
#[test]
fn scale_refuses_in_words() {
    let base = ["scale", "--model", "resnet50", "--machine", "lumi"];
    for (more, word) in [
        (["--ranks", "8..4"], "8..4 is empty"),
        (["--ranks", "none"], "none"),
        (["--baseline", "1000000000000"], "expected 1 to 1000000 ranks"),
        (["--share", "2"], "to 1"),
        (["--inside", "0"], "GB/s from"),
        (["--inside", "1e-320"], "GB/s from"),
        (["--spread", "nan"], "from 0 to 10"),
        (["--spread", "-1"], "from 0 to 10"),
        (["--alpha", "20"], "--rate"),
        (["--rate", "20"], "--alpha"),
        (["--strategy", "hope"], "halfstep"),
    ] {
        let output = halfstep(&[&base[..], &more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
    // What no machine has the time for is still a number.
    let most = usize::MAX.to_string();
    let output = halfstep(&[&base[..], &["--batch", &most, "--ranks", "2"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = halfstep(&[&base[..], &["--svg", "no/such/folder/x.svg"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert!(text(&output.stderr).starts_with("halfstep scale: no/such/folder/x.svg: "));
    assert_eq!(halfstep(&["scale", "--model", "x", "--machine", "lumi"]).status.code(), Some(2));
}

/// What is pinned is said, and counts wherever the strategy is shown. Nodes of different sizes are no choice.
#[test]
fn scale_says_what_is_not_usual() {
    let base = ["scale", "--model", "wav2vec2-base", "--machine", "juwels-booster"];
    let run = |more: &[&str]| text(&halfstep(&[&base[..], more].concat()).stdout);
    let pinned = ["--ranks", "64", "--algorithm", "ring"];
    let out = run(&pinned);
    assert!(out.contains("; here by ring alone") && !out.contains("from 64 ranks on"), "{out}");
    let value: serde_json::Value =
        serde_json::from_str(&run(&[&pinned[..], &["--json"]].concat())).unwrap();
    assert_eq!(value["rows"], value["strategies"]["halfstep"]);
    assert_eq!(value["algorithm"], "ring");

    assert!(
        run(&["--precision", "f32"]).contains("TF32) at 40 % of 156.0") && !out.contains("TF32")
    );
    let idle =
        |ranks: &str| run(&["--ranks", ranks, "--global-batch", "64"]).contains("nothing to do");
    assert!(idle("64,65") && !idle("64"));

    let out = run(&["--ranks", "1001,2001"]);
    assert!(
        out.contains("two-level takes nodes of as many ranks each: of 1001 ranks and others"),
        "{out}"
    );
    assert!(!out.contains("ranks on: `reduce::Hierarchical`"), "{out}");
    assert!(run(&["--ranks", "1001,2000"]).contains("from 2000 ranks on: `reduce::Hierarchical`"));
}
