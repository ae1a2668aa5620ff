//! The optimizer against halfstep's own on slices.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};
use halfstep::optim::{AdamW, Config, Group, Skip};
use halfstep::{Device, Read, Write, bf16};
use halfstep_candle::{Optimizer, data::uniform};

const RULE: AdamW =
    AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, amsgrad: false };

fn variable(seed: u64, dims: &[usize]) -> Result<Var> {
    Var::from_tensor(&uniform(seed, dims)?.to_dtype(DType::BF16)?)
}

fn bits(tensor: &Tensor) -> Result<Vec<u16>> {
    Ok(elements(tensor)?.into_iter().map(bf16::to_bits).collect())
}

fn elements(tensor: &Tensor) -> Result<Vec<bf16>> {
    tensor.flatten_all()?.to_vec1()
}

/// Gradients as candle makes them: those of the sum of `var·of`.
fn gradients(of: &[(&Var, Tensor)]) -> Result<GradStore> {
    let mut loss = Tensor::zeros((), DType::F32, &candle_core::Device::Cpu)?;
    for (var, gradient) in of {
        loss = (loss + (var.to_dtype(DType::F32)? * gradient)?.sum_all()?)?;
    }
    loss.backward()
}

#[test]
fn three_steps_have_the_bits_of_slices() -> Result<()> {
    let vars = [variable(1, &[30, 17])?, variable(2, &[17])?, variable(3, &[2, 3, 4])?];
    let device = Device::cpu();
    let names = ["w", "b", "v"];
    let named: Vec<_> = names.into_iter().zip(&vars).collect();
    let config = Config { clip: Some(1.0), ..Config::default() };
    let mut optimizer = Optimizer::<bf16>::new(&device, &named, RULE, config)?;

    let mut slices = vars.iter().map(|var| elements(var)).collect::<Result<Vec<_>>>()?;
    let (mut group, stream) = (Group::new(RULE), device.stream().unwrap());
    for (name, slice) in names.iter().zip(&slices) {
        group = group.tensor(halfstep::optim::Tensor::new(*name, slice.len()));
    }
    let mut by_slices =
        halfstep::optim::Optimizer::<bf16, bf16>::new(&device, &[group], config).unwrap();
    let values: Vec<_> = slices.iter().map(|slice| slice as &dyn Read<bf16>).collect();
    by_slices.load_params(&stream, &values).unwrap();

    for step in 0..3 {
        // One has no gradient in the second step.
        let with = vars.iter().enumerate().filter(|(at, _)| (step, *at) != (1, 2));
        let of = with.map(|(at, var)| Ok((var, uniform(10 * step + at as u64, var.shape())?)));
        let grads = gradients(&of.collect::<Result<Vec<_>>>()?)?;
        optimizer.step(&grads)?;

        let grads = vars.iter().map(|var| grads.get(var).map(elements).transpose());
        let grads = grads.collect::<Result<Vec<_>>>()?;
        let grads: Vec<_> =
            grads.iter().map(|grad| grad.as_ref().map(|grad| grad as &dyn Read<bf16>)).collect();
        let mut params: Vec<_> =
            slices.iter_mut().map(|slice| slice as &mut dyn Write<bf16>).collect();
        by_slices.run(&stream, &mut params, &grads).unwrap();
        assert_eq!(optimizer.report()?, by_slices.report(&stream).unwrap());
    }
    for ((var, slice), seed) in vars.iter().zip(&slices).zip(1..) {
        let expected: Vec<u16> = slice.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits(var)?, expected);
        assert_ne!(bits(var)?, bits(&*variable(seed, var.dims())?)?, "nothing has moved");
    }
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_skips_the_step() -> Result<()> {
    let (w, b) = (variable(1, &[4, 4])?, variable(2, &[4])?);
    let mut optimizer =
        Optimizer::<bf16>::new(&Device::cpu(), &[("w", &w), ("b", &b)], RULE, Config::default())?;
    let before = (bits(&w)?, bits(&b)?);
    let infinite = (uniform(3, 4)? / 0.0)?;
    optimizer.step(&gradients(&[(&w, uniform(4, (4, 4))?), (&b, infinite)])?)?;
    assert!(matches!(optimizer.report()?.skipped, Some(Skip::NonFinite { .. })));
    assert_eq!((bits(&w)?, bits(&b)?), before);
    Ok(())
}

/// A variable that was listed twice would wait for itself for ever, and so would one that is its own gradient.
#[test]
fn what_does_not_fit_is_said_and_nothing_is_written() -> Result<()> {
    let (w, b) = (variable(1, &[4, 3])?, variable(2, &[4])?);
    let device = Device::cpu();
    let new =
        |named: &[(&str, &Var)]| Optimizer::<bf16>::new(&device, named, RULE, Config::default());
    let twice = new(&[("w", &w), ("v", &w)]).err().unwrap().to_string();
    assert!(twice.contains("v: expected memory of its own, found that of w"), "{twice}");
    let wide = Var::from_tensor(&uniform(1, 4)?)?;
    let wide = new(&[("w", &w), ("wide", &wide)]).err().unwrap().to_string();
    assert!(wide.starts_with("wide\nunexpected dtype, expected: BF16, got: F32"), "{wide}");

    let mut optimizer = new(&[("w", &w), ("b", &b)])?;
    let before = (bits(&w)?, bits(&b)?);
    let mut refuses = |gradient: Tensor, words: &str| -> Result<()> {
        let mut grads = gradients(&[(&b, uniform(3, 4)?)])?;
        grads.insert(&w, gradient);
        let error = optimizer.step(&grads).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!((bits(&w)?, bits(&b)?), before);
        Ok(())
    };
    refuses(w.as_tensor().clone(), "gradient of w: expected memory of its own, found that of w")?;
    refuses(b.as_detached_tensor(), "gradient of w: expected memory of its own, found that of b")?;
    refuses(uniform(3, (4, 3))?, "gradient of w\nunexpected dtype, expected: BF16, got: F32")?;
    let transposed = uniform(3, (3, 4))?.to_dtype(DType::BF16)?.t()?;
    refuses(transposed, "gradient of w: found [4, 3] with strides [1, 4]")?;
    let other = uniform(3, (3, 4))?.to_dtype(DType::BF16)?;
    refuses(other, "gradient of w, expected: [4, 3], got: [3, 4]")?;
    // After all that a step is still to be made, and can be.
    optimizer.step(&gradients(&[(&w, uniform(4, (4, 3))?)])?)?;
    assert_ne!(bits(&w)?, before.0);
    assert_eq!(bits(&b)?, before.1);
    Ok(())
}
