//! What the environment says.

use std::str::FromStr;

/// Fails one call: the `nth` from now on, counted from 1, of the function `call`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The function's name, with or without the suffix of its version; `*` is any.
    pub call: String,
    /// Which call, from 1.
    pub nth: u64,
    /// What it returns.
    pub code: u32,
    /// Only calls of this thread count.
    pub thread: Option<u64>,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is not CALL:N:CODE");
        let mut parts = text.trim().split(':');
        let (Some(call), Some(nth), Some(code), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        let nth = nth.parse().ok().filter(|n| *n > 0).ok_or_else(error)?;
        let code = code.parse().map_err(|_| error())?;
        Ok(Self { call: call.into(), nth, code, thread: None })
    }
}

impl Rule {
    /// Several, separated by commas.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(str::parse).collect()
    }

    /// Whether it is about this function.
    pub fn is_about(&self, call: &str) -> bool {
        self.call == "*"
            || call == self.call
            || call.strip_prefix(self.call.as_str()).is_some_and(is_version)
    }
}

/// `_v2` and the like, which callers do not write.
fn is_version(suffix: &str) -> bool {
    suffix.strip_prefix("_v").is_some_and(|n| n.parse::<u32>().is_ok())
}

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `VGPU_DEVICES`: how many devices there are.
    pub devices: u32,
    /// `VGPU_SEED`: what the order of execution is drawn from.
    pub seed: u64,
    /// `VGPU_FINDINGS=report`: findings are printed and nothing more.
    pub report_only: bool,
    /// `VGPU_TRACE`: a file, or `stderr`.
    pub trace: Option<String>,
    /// `VGPU_COUNTERS`: a file.
    pub counters: Option<String>,
    /// `VGPU_FAIL`: calls to fail.
    pub fail: Vec<Rule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            devices: 1,
            seed: 0,
            report_only: false,
            trace: None,
            counters: None,
            fail: Vec::new(),
        }
    }
}

impl Settings {
    /// Of the process. What cannot be read is an error that says so.
    pub fn from_env() -> Result<Self, String> {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Of any source.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str, default: u64| match get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name}={text} is not a number")),
        };
        let report_only = match get("VGPU_FINDINGS").as_deref() {
            None | Some("fail") => false,
            Some("report") => true,
            Some(other) => return Err(format!("VGPU_FINDINGS={other} is not fail or report")),
        };
        let devices = number("VGPU_DEVICES", 1)?;
        if devices > 64 {
            return Err(format!("VGPU_DEVICES={devices} is more than 64"));
        }
        Ok(Self {
            devices: devices as u32,
            seed: number("VGPU_SEED", 0)?,
            report_only,
            trace: get("VGPU_TRACE"),
            counters: get("VGPU_COUNTERS"),
            fail: Rule::list(&get("VGPU_FAIL").unwrap_or_default())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_or_refused() {
        let read = |name: &'static str, value: &'static str| {
            Settings::read(move |wanted| (wanted == name).then(|| value.to_string()))
        };
        assert_eq!(read("VGPU_DEVICES", "3").unwrap().devices, 3);
        assert!(read("VGPU_SEED", "x").is_err() && read("VGPU_FINDINGS", "x").is_err());
        assert!(read("VGPU_FAIL", "a:0:1").is_err() && read("VGPU_FAIL", "a:1").is_err());
        let fail = read("VGPU_FAIL", "cuMemAlloc:2:2, cuInit:1:100").unwrap().fail;
        assert_eq!((fail[0].nth, fail[0].code, fail.len()), (2, 2, 2));
        assert!("*:7:1".parse::<Rule>().unwrap().is_about("cuInit"));
        assert!(fail[0].is_about("cuMemAlloc_v2") && !fail[0].is_about("cuMemAllocAsync"));
    }
}
