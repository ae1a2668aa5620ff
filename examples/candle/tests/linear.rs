//! The layer against candle's own operations.

use candle_core::{DType, Device, Error, Module, Result, Tensor, Var, WithDType};
use halfstep::gemm::Activation;
use halfstep::gemm::bound::{Forward, Growth, backward, bound, dz, within};
use halfstep::{Storage, bf16, f16};
use halfstep_candle::{Element, Linear, data::uniform, plain};

/// The values of a tensor, in f64.
fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

fn layer<T: Element>(weight: &Tensor, bias: &Tensor, activation: Activation) -> Linear<T> {
    let device = halfstep::Device::cpu();
    Linear::new(&device, weight.clone(), bias.clone(), activation).unwrap()
}

/// All of `got` are as near to `exact` as the bound of their place allows.
fn near(
    what: &str,
    got: &Tensor,
    exact: &Tensor,
    dtype: halfstep::Dtype,
    bound: impl Fn(usize, f64) -> f64,
) -> Result<()> {
    assert_eq!(got.dims(), exact.dims(), "{what}");
    for (at, (got, exact)) in values(got)?.into_iter().zip(values(exact)?).enumerate() {
        let bound = bound(at, exact);
        assert!(within(got, exact, bound, dtype), "{what}[{at}]: {got}, not {exact} ± {bound}");
    }
    Ok(())
}

/// Outputs and the three gradients, beside what candle computes in f64 from the same values.
fn agrees_with_candle<T: Element>(activation: Activation, dims: &[usize]) -> Result<()> {
    let (dtype, output) = (<T as WithDType>::DTYPE, <T as Storage>::DTYPE);
    let (inputs, outputs) = (*dims.last().unwrap(), 37);
    let rows: usize = dims.iter().product::<usize>() / inputs;
    let mut y_dims = dims.to_vec();
    *y_dims.last_mut().unwrap() = outputs;
    let of = |seed, dims: &[usize]| uniform(seed, dims)?.to_dtype(dtype);
    let (x, w) = (Var::from_tensor(&of(1, dims)?)?, Var::from_tensor(&of(2, &[outputs, inputs])?)?);
    let (b, dy) = (Var::from_tensor(&of(3, &[outputs])?)?, of(4, &y_dims)?);

    // Of the sum of y·dy, the gradient of y is dy.
    let y = layer::<T>(&w, &b, activation).forward(&x)?;
    let grads = (&y * &dy)?.to_dtype(DType::F32)?.sum_all()?.backward()?;

    let wide = |tensor: &Tensor, shape: &[usize]| tensor.to_dtype(DType::F64)?.reshape(shape);
    let exact_x = Var::from_tensor(&wide(&x, &[rows, inputs])?)?;
    let exact_w = Var::from_tensor(&wide(&w, &[outputs, inputs])?)?;
    let exact_b = Var::from_tensor(&wide(&b, &[outputs])?)?;
    let exact_dy = wide(&dy, &[rows, outputs])?;
    let exact_y = plain::linear(&exact_x, &exact_w, &exact_b, activation)?;
    let exact = (&exact_y * &exact_dy)?.sum_all()?.backward()?;
    let z = Var::from_tensor(&plain::linear(&exact_x, &exact_w, &exact_b, Activation::None)?)?;
    let exact_dz = (plain::activate(&z, activation)? * &exact_dy)?.sum_all()?.backward()?;
    let exact_dz = exact_dz.get(&z).unwrap().abs()?;

    // What the bounds are functions of.
    let (abs_x, abs_w) = (exact_x.abs()?, exact_w.abs()?);
    let sums = values(&abs_x.matmul(&abs_w.t()?)?.broadcast_add(&exact_b.abs()?)?)?;
    let z = values(&z)?;
    let forward = |activation, at: usize, exact| {
        let (growth, preactivation) = (Growth::Expected, z[at]);
        let magnitude = sums[at];
        bound(Forward { growth, k: inputs, magnitude, activation, preactivation, exact, output })
    };
    let name = |what| format!("{what} of {output}, {activation:?}, {dims:?}");
    near(&name("y"), &y.reshape((rows, outputs))?, &exact_y, output, |at, exact| {
        forward(activation, at, exact)
    })?;
    let dz_error = values(&dy)?
        .into_iter()
        .enumerate()
        .map(|(at, dy)| dz(activation, output, dy, z[at], forward(Activation::None, at, z[at])));
    let dz_error = Tensor::from_iter(dz_error, &Device::Cpu)?.reshape((rows, outputs))?;
    let ones = Tensor::ones((rows, 1), DType::F64, &Device::Cpu)?;
    for (what, of, exact_of, k, terms) in [
        (
            "dx",
            &x,
            &exact_x,
            outputs,
            Box::new(|dz: &Tensor| dz.matmul(&abs_w)) as Box<dyn Fn(&_) -> _>,
        ),
        ("dw", &w, &exact_w, rows, Box::new(|dz: &Tensor| dz.t()?.matmul(&abs_x))),
        ("db", &b, &exact_b, rows, Box::new(|dz: &Tensor| dz.t()?.matmul(&ones))),
    ] {
        let (magnitude, inherited) = (values(&terms(&exact_dz)?)?, values(&terms(&dz_error)?)?);
        let exact = exact.get(exact_of).unwrap();
        let got = grads.get(of).unwrap();
        assert_eq!(got.dtype(), dtype);
        near(&name(what), &got.reshape(exact.shape())?, exact, output, |at, exact| {
            backward(Growth::Expected, k, magnitude[at], inherited[at], exact, output)
        })?;
    }
    Ok(())
}

#[test]
fn outputs_and_gradients_are_candles_within_the_bound() -> Result<()> {
    for dims in [&[5, 19][..], &[64, 96], &[3, 4, 33], &[7]] {
        for activation in Activation::ALL {
            agrees_with_candle::<bf16>(activation, dims)?;
            agrees_with_candle::<f16>(activation, dims)?;
            // candle has six digits of GELU's derivative.
            if !matches!(activation, Activation::GeluTanh | Activation::GeluErf) {
                agrees_with_candle::<f32>(activation, dims)?;
            }
        }
    }
    Ok(())
}

#[test]
fn each_call_of_a_layer_keeps_its_own_preactivation() -> Result<()> {
    let w = Var::from_tensor(&uniform(1, (8, 8))?)?;
    let b = Var::from_tensor(&uniform(2, 8)?)?;
    let layer = layer::<f32>(&w, &b, Activation::Silu);
    let of = |seed| layer.forward(&uniform(seed, (4, 8))?)?.sum_all();
    let gradient = |loss: Tensor| values(loss.backward()?.get(&w).unwrap());
    let (one, other) = (gradient(of(3)?)?, gradient(of(4)?)?);
    let both = gradient((of(3)? + of(4)?)?)?;
    let sum: Vec<_> =
        one.iter().zip(&other).map(|(a, b)| f64::from(*a as f32 + *b as f32)).collect();
    assert_eq!(both, sum);
    Ok(())
}

#[test]
fn rows_of_a_tensor_are_lent_as_they_lie() -> Result<()> {
    let layer = layer::<f32>(&uniform(1, (4, 3))?, &uniform(2, 4)?, Activation::Relu);
    let all = uniform(3, (9, 3))?;
    let some = layer.forward(&all.narrow(0, 2, 5)?)?;
    assert_eq!(some.to_vec2::<f32>()?, layer.forward(&all)?.narrow(0, 2, 5)?.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn only_variables_have_gradients() -> Result<()> {
    let (x, w) = (uniform(1, (4, 8))?, uniform(2, (8, 8))?);
    let b = Var::from_tensor(&uniform(3, 8)?)?;
    let layer = layer::<f32>(&w, &b, Activation::Relu);
    let grads = layer.forward(&x)?.sum_all()?.backward()?;
    assert!(grads.get(&b).is_some());
    assert!(grads.get(&w).is_none() && grads.get(&x).is_none());
    Ok(())
}

/// What is inside of context, and of the trace that candle adds where `RUST_BACKTRACE` is set.
fn cause(error: Error) -> Error {
    match error {
        Error::Context { inner, .. } | Error::WithBacktrace { inner, .. } => cause(*inner),
        error => error,
    }
}

#[test]
fn what_a_layer_cannot_be_made_of_is_said() -> Result<()> {
    let (w, b) = (uniform(1, (4, 3))?, uniform(2, 4)?);
    let new = |w: &Tensor, b: &Tensor| {
        let (device, w, b) = (halfstep::Device::cpu(), w.clone(), b.clone());
        cause(Linear::<f32>::new(&device, w, b, Activation::Relu).err().unwrap())
    };
    let Error::UnexpectedShape { msg, expected, got } = new(&w, &uniform(2, 3)?) else { panic!() };
    assert_eq!((&*msg, expected.dims(), got.dims()), ("bias", &[4][..], &[3][..]));
    let error = new(&w.to_dtype(DType::BF16)?, &b);
    let Error::UnexpectedDType { msg, expected, got } = error else { panic!("{error}") };
    assert_eq!((msg, expected, got), ("weight", DType::F32, DType::BF16));
    assert!(matches!(new(&b, &b), Error::UnexpectedNumberOfDims { expected: 2, got: 1, .. }));
    Ok(())
}

#[test]
fn what_a_layer_cannot_be_called_with_is_said() -> Result<()> {
    let layer = layer::<f32>(&uniform(1, (4, 3))?, &uniform(2, 4)?, Activation::Relu);
    let forward = |x: &Tensor| {
        let error = layer.forward(x).err().unwrap();
        (error.to_string(), cause(error))
    };
    for (dims, expected) in [(&[2, 4][..], &[2, 3][..]), (&[], &[3])] {
        let (_, error) = forward(&uniform(3, dims)?);
        let Error::UnexpectedShape { msg, expected: shape, got } = error else { panic!("{error}") };
        assert_eq!((&*msg, shape.dims(), got.dims()), ("x", expected, dims));
    }
    let (text, error) = forward(&uniform(3, (3, 2))?.t()?);
    assert!(matches!(error, Error::RequiresContiguous { .. }), "{text}");
    assert!(text.contains("x: found [2, 3] with strides [1, 2]"), "{text}");
    let (text, error) = forward(&uniform(3, (2, 3))?.to_dtype(DType::F64)?);
    assert!(matches!(error, Error::UnexpectedDType { got: DType::F64, .. }), "{text}");
    assert!(text.starts_with("x\n"), "{text}");
    Ok(())
}
