//! A tensor of a golden file.

use halfstep::{Dtype, Storage};
use safetensors::tensor::{Dtype as FileDtype, TensorView};

use super::Reason;

/// Values as they are in the file.
pub struct Tensor {
    role: String,
    dtype: FileDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    pub fn new(role: &str, view: &TensorView<'_>) -> Self {
        let (dtype, shape) = (view.dtype(), view.shape().to_vec());
        Self { role: role.to_string(), dtype, shape, bytes: view.data().to_vec() }
    }

    /// The values, which must be stored as `T`.
    pub fn storage<T: Storage>(&self) -> Result<Vec<T>, Reason> {
        let expected = match T::DTYPE {
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::F16 => FileDtype::F16,
            Dtype::F32 => FileDtype::F32,
        };
        if self.dtype != expected {
            return Err(format!(
                "{}: stored as {:?}, expected {expected:?}",
                self.role, self.dtype
            ));
        }
        // The file's bytes have no alignment.
        Ok(self.bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
    }

    /// The values, of any number type, as f64.
    pub fn f64s(&self) -> Result<Vec<f64>, Reason> {
        fn read<T: bytemuck::Pod>(bytes: &[u8], widen: impl Fn(T) -> f64) -> Vec<f64> {
            bytes
                .chunks_exact(size_of::<T>())
                .map(|b| widen(bytemuck::pod_read_unaligned(b)))
                .collect()
        }
        let bytes = &self.bytes;
        match self.dtype {
            FileDtype::F64 => Ok(read::<f64>(bytes, |x| x)),
            FileDtype::F32 => Ok(read::<f32>(bytes, f64::from)),
            FileDtype::BF16 => Ok(read::<halfstep::bf16>(bytes, |x| f64::from(x.widen()))),
            FileDtype::F16 => Ok(read::<halfstep::f16>(bytes, |x| f64::from(x.widen()))),
            FileDtype::I32 => Ok(read::<i32>(bytes, f64::from)),
            other => {
                Err(format!("{}: stored as {other:?}, not a number type read here", self.role))
            }
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product() // the file's reader has checked that this does not overflow
    }

    /// Checks the shape.
    pub fn shaped(&self, shape: &[usize]) -> Result<&Self, Reason> {
        if self.shape != shape {
            return Err(format!("{}: shape {:?}, expected {shape:?}", self.role, self.shape));
        }
        Ok(self)
    }
}
