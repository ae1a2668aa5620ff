//! The header: what the arrays are, and everything that is not an array.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ops::Range;

use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};

use super::super::core::{Core, Masters};
use super::super::{Moments, Rule};
use super::file::digits;
use super::{LOAD, Loaded, PIECE};
use crate::kernel::params::optim::{Progress, Status};
use crate::{Error, Result, Storage, bf16};

/// The version of what this page describes.
const FORMAT: &str = "halfstep-optim/1";

/// Which array of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Array {
    Master,
    Remainder,
    Slot(usize),
}

/// One array of one tensor.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `<tensor>/<slot>`.
    pub(super) name: String,
    pub(super) array: Array,
    /// safetensors' name of the type.
    dtype: &'static str,
    len: usize,
    /// First byte of the data.
    pub(super) offset: u64,
    /// The elements whose state is in the optimizer; none for a file's entries.
    pub(super) part: Range<usize>,
    /// Where they start in the optimizer's array.
    pub(super) state: usize,
}

impl Entry {
    pub(super) fn width(&self) -> usize {
        if self.dtype == "F32" { 4 } else { 2 }
    }

    /// (first element, elements) of each piece.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let len = self.len;
        (0..len).step_by(PIECE).map(move |start| (start, PIECE.min(len - start)))
    }

    /// The bytes of a piece.
    pub(super) fn piece<'a>(&self, memory: &'a mut [u32], count: usize) -> &'a mut [u8] {
        &mut bytemuck::cast_slice_mut(memory)[..count * self.width()]
    }

    pub(super) fn values<'a>(&self, bytes: &'a [u8]) -> Box<dyn Iterator<Item = f32> + 'a> {
        if self.dtype == "F32" {
            Box::new(bytemuck::cast_slice::<u8, f32>(bytes).iter().copied())
        } else {
            Box::new(bytemuck::cast_slice::<u8, bf16>(bytes).iter().map(|value| value.widen()))
        }
    }

    pub(super) fn wrong(&self, expected: impl ToString, found: impl ToString) -> Error {
        wrong(&self.name, expected, found)
    }
}

fn wrong(item: &str, expected: impl ToString, found: impl ToString) -> Error {
    Error::checkpoint(LOAD, item, expected, found)
}

/// A tensor and its counters.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) name: String,
    len: usize,
    pub(super) progress: Progress,
    /// Its group; older files do not say.
    group: Option<usize>,
}

/// Everything in a header.
#[derive(Debug)]
pub(super) struct Header {
    /// What must agree: (field, value).
    identity: Vec<(&'static str, String)>,
    pub(super) loaded: bool,
    /// Whether the loss scale has a history.
    pub(super) dynamic: bool,
    pub(super) status: Status,
    pub(super) rates: Vec<f64>,
    pub(super) tensors: Vec<Counted>,
    pub(super) entries: Vec<Entry>,
    pub(super) hashes: Vec<u64>,
}

/// Below this, there is room to count on.
const MOST: u64 = 1 << 63;

const IDENTITY: [&str; 6] = ["rule", "params", "master", "moments", "slots", "seed"];

impl Header {
    /// An optimizer's, with the counters of each tensor.
    pub(super) fn of(optimizer: &Core, status: &Status, progress: &[Progress]) -> Self {
        let config = &optimizer.config;
        let values = [
            optimizer.rule.name().to_string(),
            optimizer.param.name().to_string(),
            format!("{:?}", config.master),
            format!("{:?}", config.moments),
            optimizer.rule.slots().join(","),
            digits(config.seed),
        ];
        let moment = if config.moments == Moments::F32 { "F32" } else { "BF16" };
        let master = match optimizer.masters {
            Masters::None => None,
            Masters::F32(_) => Some(("master", Array::Master, "F32")),
            Masters::Remainder(_) => Some(("remainder", Array::Remainder, "U16")),
        };
        let slots = optimizer.rule.slots().iter().enumerate();
        let slots = slots.map(|(number, name)| (*name, Array::Slot(number), moment));
        let arrays: Vec<_> = master.into_iter().chain(slots).collect();
        let (mut tensors, mut entries, mut offset) = (Vec::new(), Vec::new(), 0);
        for (item, &progress) in optimizer.layout.items.iter().zip(progress) {
            let (name, group) = (item.name.clone(), Some(item.group));
            tensors.push(Counted { name, len: item.len, progress, group });
            let state = item.row.map_or(0, |row| optimizer.layout.first_state(row));
            for &(slot, array, dtype) in &arrays {
                let name = format!("{}/{slot}", item.name);
                let part = item.part.clone();
                let entry = Entry { name, array, dtype, len: item.len, offset, part, state };
                offset += (item.len * entry.width()) as u64;
                entries.push(entry);
            }
        }
        Self {
            identity: IDENTITY.into_iter().zip(values).collect(),
            loaded: optimizer.loaded,
            dynamic: optimizer.scale_rules.rules().dynamic == 1,
            status: *status,
            rates: optimizer.rules.iter().map(Rule::lr).collect(),
            tensors,
            hashes: vec![0; entries.len()],
            entries,
        }
    }

    /// As JSON; its length does not depend on the hashes.
    pub(super) fn text(&self) -> String {
        let mut own = Map::new();
        for (field, value) in &self.identity {
            own.insert((*field).to_string(), json!(value));
        }
        let status = &self.status;
        let bits = |value: f64| digits(value.to_bits());
        own.insert("loaded".into(), json!(self.loaded));
        own.insert("dynamic".into(), json!(self.dynamic));
        own.insert("attempts".into(), json!(status.attempts));
        own.insert("applied".into(), json!(status.applied));
        own.insert("scale".into(), json!(bits(f64::from(status.scale))));
        own.insert("growth_tracker".into(), json!(status.growth_tracker));
        own.insert("hysteresis".into(), json!(status.hysteresis));
        own.insert("skips".into(), json!(status.skips));
        let rates: Vec<String> = self.rates.iter().map(|&rate| bits(rate)).collect();
        own.insert("lr".into(), json!(rates));
        let tensors = self.tensors.iter().map(|tensor| {
            let Progress { step, beta1_power, beta2_power } = tensor.progress;
            let (one, two) = (bits(beta1_power), bits(beta2_power));
            json!([tensor.name, tensor.len, step, one, two, tensor.group])
        });
        own.insert("tensors".into(), Value::Array(tensors.collect()));
        let hashes: Vec<String> = self.hashes.iter().map(|&hash| digits(hash)).collect();
        let metadata = json!({
            "format": FORMAT,
            "hashes": hashes.join(","),
            "optimizer": Value::Object(own).to_string(),
        });
        // By hand from here on, so that the mark is where a reader looks for it.
        let metadata = metadata.to_string();
        let mut text = String::from("{\"__metadata__\":{\"header_hash\":\"0000000000000000\",");
        text.push_str(&metadata[1..]);
        for entry in &self.entries {
            let end = entry.offset + (entry.len * entry.width()) as u64;
            let description = json!({
                "dtype": entry.dtype,
                "shape": [entry.len],
                "data_offsets": [entry.offset, end],
            });
            text.push_str(&format!(",{}:{description}", json!(entry.name)));
        }
        text.push('}');
        text
    }

    /// A file's, with `data` bytes behind it.
    pub(super) fn parse(text: &str, data: u64) -> Result<Self> {
        let parsed: Metadata = serde_json::from_str(text.trim_end_matches(' '))
            .map_err(|error| wrong("header", "a safetensors header", error))?;
        let none = || wrong("header", "a state file of halfstep", "no metadata");
        let metadata = parsed.metadata().as_ref().ok_or_else(none)?;
        let field = |name: &str| {
            metadata.get(name).ok_or_else(|| wrong("header", format!("`{name}`"), "none"))
        };
        if field("format")? != FORMAT {
            return Err(wrong("format", FORMAT, field("format")?));
        }
        let own: Value = serde_json::from_str(field("optimizer")?)
            .map_err(|error| wrong("optimizer", "JSON", error))?;
        let own = Own(&own);
        let mut entries = Vec::new();
        for name in parsed.offset_keys() {
            let info = parsed.info(&name).ok_or_else(none)?;
            entries.push(entry(name, info)?);
        }
        let mut offset = 0u64;
        for entry in &entries {
            if entry.offset != offset {
                return Err(entry.wrong(format!("data from byte {offset}"), entry.offset));
            }
            offset += (entry.len * entry.width()) as u64; // bounded: `entry` checked it
        }
        if offset != data {
            return Err(wrong("data", format!("{offset} bytes"), data));
        }
        let hashes = field("hashes")?;
        let hashes: Vec<u64> = if hashes.is_empty() {
            Vec::new()
        } else {
            hashes.split(',').map(|text| bits("hashes", text)).collect::<Result<_>>()?
        };
        if hashes.len() != entries.len() {
            return Err(wrong("hashes", entries.len(), hashes.len()));
        }
        let identity = IDENTITY.into_iter().map(|field| Ok((field, own.text(field)?.to_string())));
        let scale = f64::from_bits(bits("scale", own.text("scale")?)?);
        let status = Status {
            attempts: own.number("attempts")?,
            applied: own.number("applied")?,
            scale: scale as f32,
            growth_tracker: own.small("growth_tracker")?,
            hysteresis: own.small("hysteresis")?,
            skips: own.small("skips")?,
            ..bytemuck::Zeroable::zeroed()
        };
        let rates = own.list("lr")?.iter().map(|rate| {
            let rate = f64::from_bits(bits("lr", rate.as_str().unwrap_or_default())?);
            let ok = rate >= 0.0 && (rate as f32).is_finite();
            if ok { Ok(rate) } else { Err(wrong("lr", "a rate", rate)) }
        });
        Ok(Self {
            identity: identity.collect::<Result<_>>()?,
            loaded: own.get("loaded")?.as_bool().unwrap_or(false),
            // Files of before do not say.
            dynamic: own.get("dynamic").map_or(Some(true), Value::as_bool).unwrap_or(true),
            status,
            rates: rates.collect::<Result<_>>()?,
            tensors: own.list("tensors")?.iter().map(counted).collect::<Result<_>>()?,
            entries,
            hashes,
        })
    }

    /// P-09 to P-11: what the file holds is what the optimizer has.
    pub(super) fn compare(&self, here: &Self, strict: bool) -> Result<Loaded> {
        for ((field, theirs), (_, ours)) in self.identity.iter().zip(&here.identity) {
            if theirs != ours {
                return Err(wrong(field, ours, theirs));
            }
        }
        if self.rates.len() != here.rates.len() {
            let [ours, theirs] =
                [here, self].map(|header| format!("rates of {} groups", header.rates.len()));
            return Err(wrong("lr", ours, theirs));
        }
        let lacks = |from: &Self, of: &Self| -> Vec<String> {
            let mut names: Vec<&str> = from.tensors.iter().map(|t| t.name.as_str()).collect();
            names.sort_unstable();
            let missing = of.tensors.iter().filter(|t| names.binary_search(&&*t.name).is_err());
            missing.map(|tensor| tensor.name.clone()).collect()
        };
        let loaded = Loaded { missing: lacks(self, here), unexpected: lacks(here, self) };
        if strict && loaded != Loaded::default() {
            let expected = format!("all of {} tensors and no other", here.tensors.len());
            let found = [("missing", &loaded.missing), ("unexpected", &loaded.unexpected)];
            let found = found.into_iter().filter(|(_, names)| !names.is_empty());
            let found: Vec<String> =
                found.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
            return Err(wrong("tensors", expected, found.join("; ")));
        }
        let tensors: HashMap<&str, &Counted> =
            here.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for Counted { name, len, group, .. } in &self.tensors {
            let Some(ours) = tensors.get(name.as_str()) else { continue };
            if ours.len != *len {
                return Err(wrong(name, format!("{} elements", ours.len), len));
            }
            // Rates are restored by group: this is where it would get another's.
            if let (Some(ours), Some(theirs)) = (ours.group, *group)
                && strict
                && self.rates.get(ours) != self.rates.get(theirs)
            {
                let found = format!("in groups[{theirs}], of another rate");
                return Err(wrong(name, format!("in groups[{ours}]"), found));
            }
        }
        let ours: HashMap<&str, &Entry> =
            here.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let mut common = 0;
        for theirs in &self.entries {
            let Some(ours) = ours.get(theirs.name.as_str()) else { continue };
            common += 1;
            let is = |entry: &Entry| format!("{}[{}]", entry.dtype, entry.len);
            if is(ours) != is(theirs) {
                return Err(theirs.wrong(is(ours), is(theirs)));
            }
        }
        let each = here.entries.len() / here.tensors.len().max(1);
        let expected = each * (here.tensors.len() - loaded.missing.len());
        if common != expected {
            return Err(wrong("arrays", format!("{expected} of known names"), common));
        }
        Ok(loaded)
    }

    /// P-04: the data is what was written.
    pub(super) fn matches(&self, index: usize, found: u64) -> Result<()> {
        if self.hashes[index] == found {
            return Ok(());
        }
        let expected = format!("checksum {}", digits(self.hashes[index]));
        Err(self.entries[index].wrong(expected, digits(found)))
    }
}

/// An entry as a file describes it.
fn entry(name: String, info: &safetensors::tensor::TensorInfo) -> Result<Entry> {
    let dtype = match info.dtype {
        safetensors::Dtype::F32 => "F32",
        safetensors::Dtype::BF16 => "BF16",
        safetensors::Dtype::U16 => "U16",
        other => return Err(wrong(&name, "F32, BF16 or U16", format!("{other:?}"))),
    };
    let &[len] = info.shape.as_slice() else {
        return Err(wrong(&name, "one dimension", info.shape.len()));
    };
    let (start, end) = info.data_offsets;
    // The array's own number comes from the optimizer's entry of the same name.
    let array = match name.rsplit('/').next() {
        Some("master") => Array::Master,
        Some("remainder") => Array::Remainder,
        Some("max_exp_avg_sq") => Array::Slot(2),
        Some("exp_avg_sq") => Array::Slot(1),
        Some("exp_avg" | "momentum_buffer" | "sum") => Array::Slot(0),
        _ => return Err(wrong(&name, "the name of an array", &name)),
    };
    let entry = Entry { name, array, dtype, len, offset: start as u64, part: 0..0, state: 0 };
    let bytes = len.checked_mul(entry.width());
    if end.checked_sub(start) != bytes || bytes.is_none() {
        return Err(entry.wrong(format!("{len} elements"), format!("bytes {start} to {end}")));
    }
    Ok(entry)
}

/// A tensor's counters.
fn counted(value: &Value) -> Result<Counted> {
    let bad = || wrong("tensors", "name, length, step, two powers and group each", value);
    let [name, len, step, one, two, group @ ..] = value.as_array().ok_or_else(bad)?.as_slice()
    else {
        return Err(bad());
    };
    let size = |value: &Value| {
        value.as_u64().and_then(|value| usize::try_from(value).ok()).ok_or_else(bad)
    };
    let group = match group {
        [] => None,
        [group] => Some(size(group)?),
        _ => return Err(bad()),
    };
    let name = name.as_str().ok_or_else(bad)?.to_string();
    let power = |value: &Value| -> Result<f64> {
        let power = f64::from_bits(bits(&name, value.as_str().unwrap_or_default())?);
        let ok = (0.0..=1.0).contains(&power);
        if ok { Ok(power) } else { Err(wrong(&name, "a power of beta from 0 to 1", power)) }
    };
    let progress = Progress {
        step: step.as_u64().filter(|&step| step < MOST).ok_or_else(bad)?,
        beta1_power: power(one)?,
        beta2_power: power(two)?,
    };
    if progress.step == 0 && (progress.beta1_power, progress.beta2_power) != (1.0, 1.0) {
        return Err(wrong(&name, "powers of 1 at step 0", progress.beta1_power));
    }
    Ok(Counted { name, len: size(len)?, progress, group })
}

/// 16 digits.
fn bits(item: &str, text: &str) -> Result<u64> {
    let whole = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = u64::from_str_radix(text, 16).ok().filter(|_| whole);
    bits.ok_or_else(|| wrong(item, "16 hexadecimal digits", text))
}

/// The optimizer's own fields.
struct Own<'a>(&'a Value);

impl<'a> Own<'a> {
    fn get(&self, field: &str) -> Result<&'a Value> {
        self.0.get(field).ok_or_else(|| wrong(field, "a value", "none"))
    }

    fn text(&self, field: &str) -> Result<&'a str> {
        let value = self.get(field)?;
        value.as_str().ok_or_else(|| wrong(field, "a text", value))
    }

    fn number(&self, field: &str) -> Result<u64> {
        let value = self.get(field)?;
        let number = value.as_u64().filter(|&number| number < MOST);
        number.ok_or_else(|| wrong(field, "a whole number below 2^63", value))
    }

    fn small(&self, field: &str) -> Result<u32> {
        let number = self.number(field)?;
        u32::try_from(number).map_err(|_| wrong(field, "at most 2^32 - 1", number))
    }

    fn list(&self, field: &str) -> Result<&'a [Value]> {
        let value = self.get(field)?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(field, "a list", value))
    }
}
