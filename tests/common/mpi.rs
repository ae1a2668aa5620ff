//! Suites whose ranks are processes of MPI: a program starts itself four times under a launcher, once
//! for each case, and reads what every rank says.
//!
//! `MPIRUN` names the launcher (`mpirun` unless set), which must be of the MPI that `MPICC` named when
//! this was built. Where there is none, and none was named, nothing is run.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use halfstep::reduce::Mpi;

pub const RANKS: usize = 4;
/// Longer than anything takes that does not hang.
pub const LONG: Duration = Duration::from_secs(60);
const CASE: &str = "HALFSTEP_MPI_CASE";

/// A case: its name, what each rank does, and who is there at the end to say that it went well.
pub type Case = (&'static str, fn(&Mpi), &'static [usize]);

pub const ALL: &[usize] = &[0, 1, 2, 3];

/// The whole of such a program.
pub fn main(cases: &[Case]) -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        let (_, rank, _) = cases.iter().find(|case| case.0 == name).expect("a case");
        let mpi = Mpi::init().expect("MPI");
        assert_eq!(mpi.size(), RANKS, "MPIRUN is not the launcher of this MPI");
        rank(&mpi);
        println!("rank {} is well", mpi.rank());
        std::thread::sleep(Duration::from_millis(200)); // launchers drop the words of the dying
        return ExitCode::SUCCESS;
    }
    let named = std::env::var("MPIRUN").ok();
    let launcher = named.clone().unwrap_or_else(|| "mpirun".into());
    let version = match Command::new(&launcher).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) if named.is_none() => {
            println!("skipped: {launcher}: {error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("MPIRUN={launcher}: {error}"),
    };
    println!("launcher: {launcher}, {}", version.lines().next().unwrap_or_default());
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut failures = 0;
    for (name, _, well) in cases.iter().filter(|case| case.0.contains(&filter)) {
        let start = Instant::now();
        let outcome = launch(
            &launcher,
            ["Open MPI", "OpenRTE", "PRRTE"].iter().any(|n| version.contains(n)),
            name,
            well,
        );
        let took = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => println!("test {name} ... ok ({took:.1} s)"),
            Err(said) => {
                failures += 1;
                println!("test {name} ... FAILED ({took:.1} s)\n{said}");
            }
        }
    }
    ExitCode::from(u8::from(failures > 0))
}

/// Runs one case on four processes. An error, with all that was said, unless the ranks of `well`,
/// and only they, say that all went well.
fn launch(launcher: &str, open_mpi: bool, case: &str, well: &[usize]) -> Result<(), String> {
    let mut command = Command::new(launcher);
    // Survivors are to speak for themselves.
    command.arg(if open_mpi { "--enable-recovery" } else { "-disable-auto-cleanup" });
    command.args(["-n", &RANKS.to_string()]).arg(std::env::current_exe().unwrap());
    command.env(CASE, case).env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let mut job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (job.stdout.take().unwrap(), job.stderr.take().unwrap());
    let reader = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            from.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let (out, err) = (reader(Box::new(stdout)), reader(Box::new(stderr)));
    let end = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = job.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= end {
            job.kill().unwrap();
            job.wait().unwrap();
            return Err("hangs".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    let said = |rank: usize| out.contains(&format!("rank {rank} is well"));
    let speak = (0..RANKS).filter(|&rank| said(rank)).collect::<Vec<_>>();
    let good = match well == ALL || open_mpi {
        true => speak == well,
        // MPICH's launcher ends the job, or itself, when a process dies: survivors may not come to
        // speak. That must be an error all the same.
        false => !status.success() && speak.iter().all(|rank| well.contains(rank)),
    };
    if good { Ok(()) } else { Err(format!("{status}\nstdout:\n{out}\nstderr:\n{err}")) }
}
