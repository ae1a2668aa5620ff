//! Where the time of many steps went, as a timeline for a browser.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::report::Reduced;
use crate::{Error, Result};

const OP: &str = "Trace::save";

/// A timeline of steps in the trace event format of Chrome (`chrome://tracing`, Perfetto): for each rank
/// a process, with the thread that marks gradients above and the communication thread below. Times are
/// those of the host's clock, so that ranks of one host can be laid over each other
/// ([`append`](Self::append)).
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// # let plan = BucketPlan::ddp(&[Param::new("w", 4)], Dtype::F32, 1, 1)?;
/// # let comm = Box::new(local(1.try_into().unwrap()).remove(0));
/// # let device = Device::cpu();
/// # let mut reducer = Reducer::<f32>::new(&device, plan, comm, Config::default())?;
/// # let (stream, mut w) = (device.stream()?, vec![1.0; 4]);
/// let mut trace = Trace::new(0);
/// reducer.ready(&stream, 0, &w)?;
/// trace.add(&reducer.finish(&stream, &mut [&mut w], Unscale::Keep)?);
/// assert!(trace.json().contains("\"pack 0\""));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    rank: usize,
    steps: usize,
    /// Objects of JSON.
    events: Vec<String>,
}

impl Trace {
    /// An empty trace of one rank.
    pub fn new(rank: usize) -> Self {
        let mut trace = Self { rank, steps: 0, events: Vec::new() };
        trace.name("process_name", 0, &format!("rank {rank}"));
        trace.name("thread_name", 0, "gradients");
        trace.name("thread_name", 1, "communication");
        trace
    }

    /// Adds a step.
    pub fn add(&mut self, step: &Reduced) {
        let began = step.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = self.steps;
        self.steps += 1;
        for event in step.events.iter().filter(|event| event.time > Duration::ZERO) {
            let (name, bucket) = (event.phase.name(), event.bucket);
            let bytes = step.times.get(bucket).map_or(0, |times| times.bytes);
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{{\"name\":\"{name} {bucket}\",\"cat\":\"{name}\",\"ph\":\"X\",\"pid\":{},\"tid\":{},\
                 \"ts\":{:.3},\"dur\":{:.3},\"args\":{{\"step\":{number},\"bucket\":{bucket},\"bytes\":{bytes}}}}}",
                self.rank,
                u8::from(event.phase.beside()),
                micros(began + event.start),
                micros(event.time),
            );
            self.events.push(text);
        }
    }

    /// Adds another rank's trace.
    pub fn append(&mut self, other: Self) {
        self.events.extend(other.events);
    }

    /// The file's text.
    pub fn json(&self) -> String {
        format!(
            "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n",
            self.events.join(",\n")
        )
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.json()).map_err(|error| Error::Io {
            op: OP,
            path: path.display().to_string(),
            text: error.to_string(),
        })
    }

    fn name(&mut self, what: &str, thread: u8, name: &str) {
        let rank = self.rank;
        self.events.push(format!(
            "{{\"name\":\"{what}\",\"ph\":\"M\",\"pid\":{rank},\"tid\":{thread},\"args\":{{\"name\":\"{name}\"}}}}"
        ));
    }
}

fn micros(time: Duration) -> f64 {
    1e6 * time.as_secs_f64()
}
