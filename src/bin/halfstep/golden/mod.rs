//! Golden files: reference cases with exact answers, replayed through the public API.
//!
//! The format is described in `tests/golden/FORMAT.md`. Nothing in a file is trusted: names, types
//! and shapes are checked against each other, and what does not fit is a reason in words.

mod clip_grad_norm;
mod gemm;
mod linear_backward;
mod loss_scaler;
mod optimizer;
mod tensor;

use std::collections::BTreeMap;

use halfstep::gemm::Subnormals;
use halfstep::{Device, Dtype, Storage};
use safetensors::SafeTensors;
use serde_json::Value;

pub use tensor::Tensor;

/// One case of a file.
pub struct Case {
    /// Its name in the file.
    pub name: String,
    /// The operation.
    pub op: String,
    attrs: Value,
    inputs: BTreeMap<String, Vec<Tensor>>,
    outputs: BTreeMap<String, Vec<Tensor>>,
}

/// Why a file or a case cannot be used.
pub type Reason = String;

/// All cases of a file's bytes.
pub fn cases(bytes: &[u8]) -> Result<Vec<Case>, Reason> {
    let not_safetensors = |error| format!("not a safetensors file: {error}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
    let file = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
    let empty = std::collections::HashMap::new();
    let metadata = header.metadata().as_ref().unwrap_or(&empty);
    match metadata.get("format").map(String::as_str) {
        Some("golden/1") => {}
        Some(other) => return Err(format!("format {other}, expected golden/1")),
        None => return Err("no format in its metadata, expected golden/1".into()),
    }
    let text = metadata.get("cases").ok_or("no cases in its metadata")?;
    let cases: Value = serde_json::from_str(text).map_err(|error| format!("cases: {error}"))?;
    let cases = cases.as_array().ok_or("cases: not a list")?;
    cases.iter().enumerate().map(|(i, case)| parse(i, case, &file)).collect()
}

fn parse(index: usize, case: &Value, file: &SafeTensors<'_>) -> Result<Case, Reason> {
    let text = |key: &str| {
        let value = case.get(key).and_then(Value::as_str);
        value.map(str::to_string).ok_or(format!("case {index}: no {key}"))
    };
    let name = text("name")?;
    let roles = |key: &str| -> Result<BTreeMap<String, Vec<Tensor>>, Reason> {
        let roles = case.get(key).and_then(Value::as_object);
        let roles = roles.ok_or(format!("case {name}: no {key}"))?;
        let load = |(role, tensors): (&String, &Value)| {
            let names = match tensors {
                Value::String(_) => std::slice::from_ref(tensors),
                Value::Array(list) => list,
                _ => return Err(format!("case {name}: {role}: neither a tensor nor a list")),
            };
            let tensors = names.iter().map(|tensor| {
                let tensor = tensor.as_str().ok_or(format!("case {name}: {role}: not a name"))?;
                let view = file
                    .tensor(tensor)
                    .map_err(|error| format!("case {name}: {role}: {tensor}: {error}"))?;
                Ok(Tensor::new(role, &view))
            });
            Ok((role.clone(), tensors.collect::<Result<_, Reason>>()?))
        };
        roles.iter().map(load).collect()
    };
    Ok(Case {
        op: text("op")?,
        attrs: case.get("attrs").cloned().unwrap_or(Value::Null),
        inputs: roles("inputs")?,
        outputs: roles("outputs")?,
        name,
    })
}

/// Replays a case; returns the worst error over its bound, 1 being the most that is allowed.
pub fn replay(device: &Device, case: &Case) -> Result<f64, Reason> {
    match case.op.as_str() {
        "gemm" => gemm::replay(device, case),
        "linear_backward" => linear_backward::replay(device, case),
        "optimizer" => optimizer::replay(device, case),
        "clip_grad_norm" => clip_grad_norm::replay(device, case),
        "loss_scaler" => loss_scaler::replay(case),
        other => Err(format!("unknown operation {other}")),
    }
}

/// Calls `$body` with `$T` as the type that the data says.
macro_rules! with_storage {
    ($dtype:expr, |$T:ident| $body:expr) => {
        match $dtype {
            halfstep::Dtype::Bf16 => {
                type $T = halfstep::bf16;
                $body
            }
            halfstep::Dtype::F16 => {
                type $T = halfstep::f16;
                $body
            }
            halfstep::Dtype::F32 => {
                type $T = f32;
                $body
            }
        }
    };
}
use with_storage;

impl Case {
    fn attr(&self, key: &str) -> Result<&Value, Reason> {
        self.attrs.get(key).ok_or(format!("no attribute {key}"))
    }

    fn number(&self, key: &str) -> Result<f64, Reason> {
        self.attr(key)?.as_f64().ok_or(format!("attribute {key} is not a number"))
    }

    fn size(&self, key: &str) -> Result<usize, Reason> {
        let size = self.attr(key)?.as_u64().and_then(|size| usize::try_from(size).ok());
        size.ok_or(format!("attribute {key} is not a size"))
    }

    fn text(&self, key: &str) -> Result<&str, Reason> {
        self.attr(key)?.as_str().ok_or(format!("attribute {key} is not a string"))
    }

    fn flag(&self, key: &str) -> Result<bool, Reason> {
        self.attr(key)?.as_bool().ok_or(format!("attribute {key} is not true or false"))
    }

    fn dtype(&self, key: &str) -> Result<Dtype, Reason> {
        let name = self.text(key)?;
        let found = Dtype::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or(format!("attribute {key}: {name} is not a storage type"))
    }

    fn activation(&self) -> Result<halfstep::gemm::Activation, Reason> {
        use halfstep::gemm::Activation;
        match self.text("activation")? {
            "none" => Ok(Activation::None),
            "relu" => Ok(Activation::Relu),
            "gelu_tanh" => Ok(Activation::GeluTanh),
            "gelu_erf" => Ok(Activation::GeluErf),
            "silu" => Ok(Activation::Silu),
            other => Err(format!("unknown activation {other}")),
        }
    }

    fn inputs(&self, role: &str) -> Result<&[Tensor], Reason> {
        self.inputs.get(role).map(Vec::as_slice).ok_or(format!("no input {role}"))
    }

    fn outputs(&self, role: &str) -> Result<&[Tensor], Reason> {
        self.outputs.get(role).map(Vec::as_slice).ok_or(format!("no output {role}"))
    }

    fn input(&self, role: &str) -> Result<&Tensor, Reason> {
        one(role, self.inputs(role)?)
    }

    fn output(&self, role: &str) -> Result<&Tensor, Reason> {
        one(role, self.outputs(role)?)
    }
}

fn one<'a>(role: &str, tensors: &'a [Tensor]) -> Result<&'a Tensor, Reason> {
    match tensors {
        [tensor] => Ok(tensor),
        _ => Err(format!("{role}: {} tensors, expected 1", tensors.len())),
    }
}

/// The worst error over its bound so far.
#[derive(Default)]
struct Worst(f64);

impl Worst {
    /// Adds one element. Written so that NaN on either side, where the other has none, fails.
    fn add(&mut self, got: f64, exact: f64, bound: f64) {
        if got == exact || (got.is_nan() && exact.is_nan()) {
            return;
        }
        // An infinite bound, of operands that are infinite, allows nothing.
        let ratio = if bound.is_finite() { (got - exact).abs() / bound } else { f64::INFINITY };
        self.0 = if ratio <= self.0 {
            self.0
        } else if ratio.is_nan() {
            f64::INFINITY
        } else {
            ratio
        };
    }
}

/// A matrix unit that reads subnormal numbers as zero is allowed to; see [`flushed`].
pub fn subnormals<T: Storage>(device: &Device) -> Subnormals {
    let flushes = device.info().flushes_subnormals && T::DTYPE != Dtype::F32;
    if flushes { Subnormals::Flush } else { Subnormals::default() }
}

/// How far an operand may be from what it is where subnormal numbers are read as zero: the smallest
/// normal number of its type, or nothing.
pub fn flushed<T: Storage>(device: &Device) -> f64 {
    match (subnormals::<T>(device), T::DTYPE) {
        (Subnormals::Flush, Dtype::F16) => 2f64.powi(-14),
        (Subnormals::Flush, Dtype::Bf16) => 2f64.powi(-126),
        _ => 0.0,
    }
}

/// A buffer for each list of values: operands that every device can use.
fn upload<T: halfstep::Element>(
    device: &Device,
    values: &[Vec<T>],
) -> Result<Vec<halfstep::Buffer<T>>, Reason> {
    values.iter().map(|values| device.upload(values).map_err(failed)).collect()
}

/// An error of the library, in words.
fn failed(error: halfstep::Error) -> Reason {
    error.to_string()
}
