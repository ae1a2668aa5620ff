//! candle's memory as slices: of contiguous tensors on the CPU. What else is found is said.

use std::cell::Cell;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, DeviceLocation, Error, InplaceOp1, Layout, Result, Shape, Storage, StorageRef,
    Tensor, Var, WithDType,
};

use crate::Element;

/// The elements of a contiguous tensor; `op` and `arg` are for the error.
pub(crate) fn elements<'a, T: Element>(
    op: &'static str,
    arg: &str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    let (start, end) = range(op, arg, layout)?;
    let elements = storage.as_slice::<T>().map_err(|error| error.context(arg.to_string()))?;
    Ok(&elements[start..end])
}

fn range(op: &'static str, arg: &str, layout: &Layout) -> Result<(usize, usize)> {
    layout.contiguous_offsets().ok_or_else(|| {
        let (shape, strides) = (layout.shape(), layout.stride());
        let found = format!("{arg}: found {shape:?} with strides {strides:?}");
        Error::RequiresContiguous { op }.context(found)
    })
}

/// Refuses a tensor of another shape; `msg` is its name.
pub(crate) fn expect_shape(msg: &str, expected: &Shape, got: &Shape) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let (msg, expected, got) = (msg.to_string(), expected.clone(), got.clone());
    Err(Error::UnexpectedShape { msg, expected, got }.bt())
}

/// A tensor that is not written while this lives.
pub(crate) struct Locked<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
}

impl<'t> Locked<'t> {
    pub fn new(tensor: &'t Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub fn shape(&self) -> &Shape {
        self.layout.shape()
    }

    /// As [`elements`], of tensors wherever they are.
    pub fn elements<T: Element>(&self, op: &'static str, arg: &str) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => elements(op, arg, storage, self.layout),
            elsewhere => {
                let rhs = elsewhere.device().location();
                let error = Error::DeviceMismatchBinaryOp { lhs: DeviceLocation::Cpu, rhs, op };
                Err(error.context(arg.to_string()))
            }
        }
    }

    /// The same for all tensors that share memory, and as long as one of them lives.
    pub fn storage(&self) -> usize {
        std::ptr::from_ref::<Storage>(&self.storage).addr()
    }
}

/// Calls `run` with the memory of all `vars`, to write.
///
/// candle lends one variable to write, for the length of an in-place operation. So each is lent inside of the one before:
/// all are locked, and what `run` is given is nobody else's. (A variable that occurred twice would wait for itself.)
pub(crate) fn with_all<T: Element>(
    op: &'static str,
    vars: &[Var],
    lent: Vec<&mut [T]>,
    run: &mut dyn FnMut(Vec<&mut [T]>) -> Result<()>,
) -> Result<()> {
    let Some((var, rest)) = vars.split_first() else { return run(lent) };
    let inside = |storage: &mut CpuStorage, layout: &Layout| {
        let (start, end) = range(op, "a variable", layout)?;
        let (expected, got) = (<T as WithDType>::DTYPE, storage.dtype());
        let elements = T::slice_mut(storage);
        let msg = "a variable";
        let elements = elements.ok_or(Error::UnexpectedDType { msg, expected, got })?;
        let mut lent: Vec<&mut [T]> = lent;
        lent.push(&mut elements[start..end]);
        with_all(op, rest, lent, run)
    };
    var.inplace_op1(&Inside { op, call: Cell::new(Some(inside)) })
}

/// A call that is made in the place of an operation, once.
struct Inside<F> {
    op: &'static str,
    call: Cell<Option<F>>,
}

impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Inside<F> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.call.take().map_or(Ok(()), |call| call(storage, layout))
    }
}
