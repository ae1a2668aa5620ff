//! The f64 oracle of `gemm`: naive and obvious. It knows no storage type, no layout trick, no order.

/// A matrix stored row-major with a leading dimension, or transposed, read in f64.
pub fn at<T: halfstep::Storage>(
    data: &[T],
    i: usize,
    j: usize,
    ld: usize,
    transposed: bool,
) -> f64 {
    let value = if transposed { data[j * ld + i] } else { data[i * ld + j] };
    f64::from(value.widen())
}

/// `Σ a·b` and `Σ |a||b|` over `k`.
pub fn dot(k: usize, a: impl Fn(usize) -> f64, b: impl Fn(usize) -> f64) -> (f64, f64) {
    (0..k).fold((0.0, 0.0), |(sum, size), p| {
        let product = a(p) * b(p);
        (sum + product, size + product.abs())
    })
}

/// `erfc`, by its series near 0 and by Lentz' continued fraction in the tail; relative error 1e-14.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.0 {
        // erf(x) = 2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1))
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 * scale * sum;
    }
    // erfc(x) = e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + …
    let tail = (1..200).rev().fold(x, |below, n| x + 0.5 * f64::from(n) / below);
    scale / tail
}

/// `Φ(x)` with full relative accuracy below.
fn normal(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `2√(2/π)`: GELU's tanh form is `z·σ(2u)`.
fn two_u(z: f64) -> f64 {
    2.0 * (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z * z * z)
}

/// The activation by its golden name.
pub fn act(name: &str, z: f64) -> f64 {
    match name {
        "none" => z,
        "relu" => z.max(0.0),
        "silu" => z * logistic(z),
        "gelu_tanh" => z * logistic(two_u(z)),
        "gelu_erf" => z * normal(z),
        other => panic!("activation {other}"),
    }
}

/// Its derivative.
pub fn act_derivative(name: &str, z: f64) -> f64 {
    match name {
        "none" => 1.0,
        "relu" => f64::from(z > 0.0),
        "silu" => {
            let s = logistic(z);
            s * (1.0 + z * (1.0 - s))
        }
        "gelu_tanh" => {
            let s = logistic(two_u(z));
            let slope = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * z * z);
            s + z * s * (1.0 - s) * slope
        }
        "gelu_erf" => normal(z) + z * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt(),
        other => panic!("activation {other}"),
    }
}
