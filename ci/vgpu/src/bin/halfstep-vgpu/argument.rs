//! Parameters as they are given on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use halfstep_vgpu::launch::Parameter;
use halfstep_vgpu::memory::GlobalMemory;

/// A parameter as it is written: KIND:VALUE.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A pointer to a file's contents.
    In(PathBuf),
    /// The same, saved afterwards.
    InOut(PathBuf, PathBuf),
    /// A pointer to undefined memory, saved afterwards.
    Out(u64, PathBuf),
    /// A struct passed by value.
    Block(PathBuf),
    /// A number's bytes.
    Number(Vec<u8>),
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once(':').ok_or("KIND:VALUE is expected")?;
        let pair = || value.split_once('=').ok_or(format!("{kind} needs =OUTFILE"));
        fn number<T: FromStr>(value: &str) -> Result<T, String>
        where
            T::Err: std::fmt::Display,
        {
            value.parse().map_err(|error| format!("`{value}`: {error}"))
        }
        Ok(match kind {
            "in" => Self::In(value.into()),
            "inout" => pair().map(|(from, to)| Self::InOut(from.into(), to.into()))?,
            "out" => {
                let (bytes, to) = pair()?;
                Self::Out(number(bytes)?, to.into())
            }
            "block" => Self::Block(value.into()),
            "i32" => Self::Number(number::<i32>(value)?.to_le_bytes().into()),
            "u32" => Self::Number(number::<u32>(value)?.to_le_bytes().into()),
            "i64" => Self::Number(number::<i64>(value)?.to_le_bytes().into()),
            "u64" => Self::Number(number::<u64>(value)?.to_le_bytes().into()),
            "f32" => Self::Number(number::<f32>(value)?.to_le_bytes().into()),
            "f64" => Self::Number(number::<f64>(value)?.to_le_bytes().into()),
            _ => return Err(format!("unknown kind of argument {kind}")),
        })
    }
}

/// A parameter in place.
pub struct Argument {
    /// What the kernel gets.
    pub bytes: Vec<u8>,
    /// Where results are, how long, and the file they go to.
    result: Option<(u64, u64, PathBuf)>,
}

impl Argument {
    /// Reads files and allocates memory.
    pub fn place(given: &Given, memory: &mut GlobalMemory) -> Result<Self, String> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let pointer = |at: u64, result| Self { bytes: at.to_le_bytes().into(), result };
        Ok(match given {
            Given::In(from) => {
                pointer(memory.allocate_with(read(from)?, from.display().to_string()), None)
            }
            Given::InOut(from, to) => {
                let data = read(from)?;
                let len = data.len() as u64;
                let at = memory.allocate_with(data, from.display().to_string());
                pointer(at, Some((at, len, to.clone())))
            }
            Given::Out(len, to) => {
                let at = memory.allocate(*len, to.display().to_string());
                pointer(at, Some((at, *len, to.clone())))
            }
            Given::Block(from) => Self { bytes: read(from)?, result: None },
            Given::Number(bytes) => Self { bytes: bytes.clone(), result: None },
        })
    }

    /// Writes results to their file.
    pub fn save(&self, memory: &mut GlobalMemory) -> Result<(), String> {
        let Some((at, len, to)) = &self.result else { return Ok(()) };
        let data = memory.read(*at, *len).map_err(|fault| fault.detail)?;
        std::fs::write(to, data).map_err(|error| format!("{}: {error}", to.display()))
    }
}

/// The bytes of all parameters. Several arguments for one parameter are fields of a struct, laid out
/// as C++ does: each at a multiple of its own size.
pub fn lay_out(parameters: &[Parameter], arguments: &[&[u8]]) -> Result<Vec<u8>, String> {
    let total = parameters.last().map_or(0, |p| p.offset + p.size) as usize;
    let mut bytes = Vec::with_capacity(total);
    if parameters.len() == 1 && arguments.len() > 1 {
        for field in arguments {
            bytes.resize(bytes.len().next_multiple_of(field.len().clamp(1, 8)), 0);
            bytes.extend_from_slice(field);
        }
        if bytes.len() > total || bytes.len().next_multiple_of(8) < total {
            return Err(format!("the struct has {total} bytes, {} are given", bytes.len()));
        }
        bytes.resize(total, 0);
        return Ok(bytes);
    }
    if parameters.len() != arguments.len() {
        let (takes, given) = (parameters.len(), arguments.len());
        return Err(format!("the kernel takes {takes} parameters, {given} are given"));
    }
    for (parameter, argument) in parameters.iter().zip(arguments) {
        let Parameter { name, offset, size } = parameter;
        if argument.len() as u64 != *size {
            return Err(format!("{name} has {size} bytes, {} are given", argument.len()));
        }
        bytes.resize(*offset as usize, 0);
        bytes.extend_from_slice(argument);
    }
    Ok(bytes)
}
