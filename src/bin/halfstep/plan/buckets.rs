//! `halfstep plan buckets`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use halfstep::Dtype;
use halfstep::reduce::{BucketPlan, Link, Param, ready_by_elements};

use super::timeline;
use crate::input;
use crate::output::Failure;
use crate::scale::{Fabric, MACHINES, Machine, Strategy};
use crate::workloads::Model;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// A model's gradients.
    #[arg(long, required_unless_present = "list", value_parser = PossibleValuesParser::new(Model::NAMES))]
    model: Option<String>,
    /// Gradients from a file, in the order in which the forward pass uses them:
    /// `[{"name": "w1", "len": 1000}, …]`.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    list: Option<PathBuf>,
    /// What gradients are rounded to for the exchange.
    #[arg(long, default_value = "bf16", value_parser = PossibleValuesParser::new(["bf16", "f16", "f32"]))]
    wire: String,
    /// Milliseconds of the backward pass.
    #[arg(long, value_name = "MS", default_value_t = 50.0)]
    backward: f64,
    /// Microseconds that an exchange takes however small it is.
    #[arg(long, value_name = "US", default_value_t = 50.0)]
    alpha: f64,
    /// Gradients exchanged in GB/s, beyond that.
    #[arg(long, value_name = "GB/s", default_value_t = 20.0)]
    rate: f64,
    /// Take alpha and rate from the simulator: this machine's, for `--ranks` ranks.
    #[arg(long, requires = "ranks", conflicts_with_all = ["alpha", "rate"],
          value_parser = PossibleValuesParser::new(MACHINES.map(|machine| machine.name)))]
    machine: Option<String>,
    /// How many ranks of the machine.
    #[arg(long, requires = "machine")]
    ranks: Option<std::num::NonZeroUsize>,
    /// Instead of the optimal plan: close buckets once they hold so many MiB, the first and the others.
    #[arg(long, num_args = 2, value_names = ["FIRST", "OTHERS"])]
    mib: Option<Vec<f64>>,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Plans and prints.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let backward = positive("--backward", args.backward)? * 1e-3;
    let (what, params, ready) = match (&args.model, &args.list) {
        (Some(name), _) => {
            let model = Model::named(name).ok_or_else(|| format!("{name} is not known"))?;
            (name.clone(), model.params(), model.ready(backward))
        }
        (None, Some(path)) => {
            let params = read(path)?;
            let ready = ready_by_elements(&params, backward);
            (path.display().to_string(), params, ready)
        }
        (None, None) => return Err(Failure::Reason("a --model or a --list".into())),
    };
    let wire = match args.wire.as_str() {
        "f32" => Dtype::F32,
        "f16" => Dtype::F16,
        _ => Dtype::Bf16,
    };
    // A sum that overflows is refused by the plan.
    let total = params.iter().fold(0usize, |sum, param| sum.saturating_add(param.len));
    let link = link(args, total.saturating_mul(wire.bytes()))?;
    let filled = |first, others| BucketPlan::ddp(&params, wire, first, others);
    let plan = match args.mib.as_deref() {
        Some([first, others]) => filled(bytes(*first)?, bytes(*others)?)?,
        _ => BucketPlan::optimal(&params, wire, &ready, link)?,
    };
    let slots = plan.timeline(&ready, link)?;
    let timeline = timeline::Timeline { plan: &plan, slots: &slots, backward };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &timeline.json()).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(true);
    }
    writeln!(out, "{what}: {} tensors, {total} elements, {wire} on the wire", params.len())?;
    let exchange = match link {
        Link { alpha: 0.0, beta: 0.0 } => "one rank exchanges nothing".into(),
        Link { alpha, beta } => {
            format!("an exchange takes {:.1} µs and {:.2} GB/s", 1e6 * alpha, 1e-9 / beta)
        }
    };
    writeln!(out, "{exchange}; the backward pass {:.2} ms\n", 1e3 * backward)?;
    timeline.print(out)?;
    writeln!(out, "\nexposed after the backward pass:")?;
    let mut others = vec![("this plan", plan.clone())];
    if args.mib.is_some() {
        others.push(("optimal", BucketPlan::optimal(&params, wire, &ready, link)?));
    }
    others.push(("1 and 25 MiB", filled(1 << 20, 25 << 20)?));
    others.push(("each tensor alone", filled(1, 1)?));
    others.push(("all in one", filled(usize::MAX, usize::MAX)?));
    for (name, plan) in others {
        let end = plan.timeline(&ready, link)?.last().map_or(0.0, |slot| slot.end);
        let count = plan.buckets().len();
        let exposed = 1e3 * (end - backward).max(0.0);
        writeln!(out, "  {name:<18} {count:>4} buckets {exposed:>9.3} ms")?;
    }
    Ok(true)
}

/// α and β: given, or the simulator's for this crate's exchange.
fn link(args: &Args, total: usize) -> Result<Link, Failure> {
    if let (Some(name), Some(ranks)) = (&args.machine, args.ranks) {
        let machine = Machine::named(name).ok_or_else(|| format!("{name} is not known"))?;
        let strategy = Strategy::named("halfstep").ok_or_else(|| "no strategy".to_string())?;
        return Ok(strategy.link(&Fabric::new(&machine, ranks.get()), total));
    }
    let rate = positive("--rate", args.rate)?;
    Ok(Link { alpha: args.alpha * 1e-6, beta: 1e-9 / rate })
}

fn positive(name: &str, value: f64) -> Result<f64, Failure> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(Failure::Reason(format!("{name}: expected a number above 0, found {value}")))
}

fn bytes(mib: f64) -> Result<usize, Failure> {
    Ok((positive("--mib", mib)? * f64::from(1 << 20)).ceil() as usize)
}

/// A list of gradients from a file; what is wrong with it is said.
fn read(path: &Path) -> Result<Vec<Param>, Failure> {
    let wrong = |reason: String| Failure::Reason(format!("{}: {reason}", path.display()));
    let value = input::json(path).map_err(wrong)?;
    let entries = value.as_array().ok_or_else(|| wrong("expected a list".into()))?;
    let param = |(index, entry): (usize, &serde_json::Value)| {
        let name = entry["name"].as_str();
        let len = entry["len"].as_u64().and_then(|len| usize::try_from(len).ok());
        match (name, len) {
            (Some(name), Some(len)) => Ok(Param::new(name, len)),
            _ => Err(wrong(format!(
                "entry {index}: expected {{\"name\": text, \"len\": elements}}, found {entry}"
            ))),
        }
    };
    let params: Vec<_> = entries.iter().enumerate().map(param).collect::<Result<_, _>>()?;
    if params.is_empty() {
        return Err(wrong("expected at least one entry".into()));
    }
    Ok(params)
}
