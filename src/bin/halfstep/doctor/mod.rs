//! `halfstep doctor`: what there is to run on, what is missing, and what stands in the way.

mod environment;
mod finding;
mod gpus;
mod libraries;
mod processor;
mod programs;
mod speed;

use std::io::Write;

use serde_json::json;

use crate::output::Failure;
use finding::{Finding, Level};
pub use programs::{on_path, output};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Looks at everything and prints it; false if there is a problem.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    // What is not UTF-8, of some folder's name, does not hide the rest.
    let env = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
    let sections: Vec<(&str, Vec<Finding>)> = vec![
        ("processor", processor::look()),
        ("speed", speed::look()),
        ("toolkits", programs::toolkits(&env)),
        ("cuda", gpus::cuda()),
        ("hip", gpus::hip()),
        ("libraries", libraries::look(&env)),
        ("mpi", programs::mpi()),
        ("environment", environment::look(&env, &environment::Facts::here())),
    ];
    let problems =
        sections.iter().flat_map(|(_, found)| found).filter(|f| f.level == Level::Problem).count();
    if args.json {
        let sections: serde_json::Map<_, _> = sections
            .iter()
            .map(|(name, found)| (name.to_string(), found.iter().map(Finding::json).collect()))
            .collect();
        let value = json!({
            "format": "halfstep doctor/1",
            "version": env!("CARGO_PKG_VERSION"),
            "sections": sections,
            "problems": problems,
        });
        serde_json::to_writer_pretty(&mut *out, &value).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(problems == 0);
    }
    writeln!(out, "halfstep {}", env!("CARGO_PKG_VERSION"))?;
    for (name, found) in &sections {
        writeln!(out, "\n{name}")?;
        for finding in found {
            write!(out, "{finding}")?;
        }
    }
    match problems {
        0 => writeln!(out, "\nno problems")?,
        1 => writeln!(out, "\n1 problem")?,
        _ => writeln!(out, "\n{problems} problems")?,
    }
    Ok(problems == 0)
}
