//! What the operands of an instruction are. The names end in types: the first is the result's, the
//! last is the sources'; the rest is exceptions.

/// What an operand holds, which says how many registers it takes and what a constant means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    B16,
    F16,
    B32,
    F32,
    B64,
    F64,
    /// Two of them.
    PackB16,
    PackF16,
    PackB32,
    PackF32,
    /// f32, or a half of a register with an f16.
    Mix,
    /// One bit a lane, in a pair of scalar registers.
    Mask,
    /// One scalar register, whatever the lane.
    Scalar,
    /// So many registers.
    Words(u8),
}

impl Type {
    /// Registers.
    pub fn words(self) -> u8 {
        match self {
            Self::B64 | Self::F64 | Self::PackB32 | Self::PackF32 | Self::Mask => 2,
            Self::Words(n) => n,
            _ => 1,
        }
    }

    /// A type's name at the end of an instruction's.
    fn named(token: &str) -> Option<Self> {
        Some(match token {
            "b16" | "i16" | "u16" => Self::B16,
            "b32" | "i32" | "u32" | "i24" | "u24" | "u8" | "i8" | "i4" => Self::B32,
            "b64" | "i64" | "u64" => Self::B64,
            "f16" => Self::F16,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    fn packed(self) -> Self {
        match self {
            Self::B16 => Self::PackB16,
            Self::F16 => Self::PackF16,
            Self::B32 => Self::PackB32,
            Self::F32 => Self::PackF32,
            other => other,
        }
    }
}

/// Operands of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub dst: Option<Type>,
    /// A second result: carries, or that a division was scaled.
    pub mask: bool,
    pub src: Vec<Type>,
}

/// A matrix product's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub blocks: usize,
    pub kind: &'static str,
}

/// The shape of `v_mfma_f32_32x32x8bf16_1k`, and of its like.
pub fn matrix(name: &'static str) -> Option<Matrix> {
    let mut parts = name.strip_prefix("v_mfma_")?.splitn(2, '_');
    let (_, shape) = (parts.next()?, parts.next()?);
    let mut sizes = shape.splitn(3, 'x');
    let (m, n, rest) = (sizes.next()?, sizes.next()?, sizes.next()?);
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    // 1f32 is a depth and a type, and so is 16f16.
    let (rows, columns, depth) = (m.parse().ok()?, n.parse().ok()?, rest[..digits].parse().ok()?);
    let kind = &rest[digits..];
    let a_words = if kind == "f64" || kind == "f16" || kind == "bf16_1k" { 2 } else { 1 };
    let per_lane = match kind {
        "f64" => 1,
        "i8" => 4,
        "f32" => 1,
        "bf16" => 2,
        _ => 2 * a_words,
    };
    Some(Matrix { rows, columns, depth, blocks: 64 * per_lane / (rows * depth), kind })
}

fn types(name: &str) -> Vec<Type> {
    name.split('_').filter_map(Type::named).collect()
}

/// Operands of a vector instruction with `count` sources in its encoding.
pub fn vector_signature(name: &'static str, count: usize) -> Signature {
    use Type::*;
    let some = |dst, src: &[Type]| Signature { dst: Some(dst), mask: false, src: src.to_vec() };
    let masked = |dst, src: &[Type]| Signature { dst: Some(dst), mask: true, src: src.to_vec() };
    if let Some(m) = matrix(name) {
        let wide = usize::from(m.kind == "f64") + 1;
        let words = Words((m.rows * m.columns * m.blocks / 64 * wide) as u8);
        let part = match m.kind {
            "f64" | "f16" | "bf16_1k" => Words(2),
            _ => Words(1),
        };
        return some(words, &[part, part, words]);
    }
    if name.starts_with("v_cmp") {
        let ty = types(name).pop().unwrap_or(B32);
        let second = if name.contains("_class_") { B32 } else { ty };
        return Signature { dst: None, mask: true, src: vec![ty, second] };
    }
    match name {
        "v_nop" | "v_clrexcp" => return Signature { dst: None, mask: false, src: vec![] },
        "v_cndmask_b32" => return some(B32, &[B32, B32, Mask]),
        "v_add_co_u32" | "v_sub_co_u32" | "v_subrev_co_u32" => return masked(B32, &[B32, B32]),
        "v_addc_co_u32" | "v_subb_co_u32" | "v_subbrev_co_u32" => {
            return masked(B32, &[B32, B32, Mask]);
        }
        "v_lshlrev_b64" | "v_lshrrev_b64" | "v_ashrrev_i64" => return some(B64, &[B32, B64]),
        "v_ldexp_f64" | "v_trig_preop_f64" => return some(F64, &[F64, B32]),
        "v_ldexp_f32" => return some(F32, &[F32, B32]),
        "v_ldexp_f16" => return some(F16, &[F16, B16]),
        "v_cvt_f32_ubyte0" | "v_cvt_f32_ubyte1" | "v_cvt_f32_ubyte2" | "v_cvt_f32_ubyte3" => {
            return some(F32, &[B32]);
        }
        "v_mad_u64_u32" | "v_mad_i64_i32" => return masked(B64, &[B32, B32, B64]),
        "v_div_scale_f32" => return masked(F32, &[F32, F32, F32]),
        "v_div_scale_f64" => return masked(F64, &[F64, F64, F64]),
        "v_readfirstlane_b32" => return some(Scalar, &[B32]),
        "v_readlane_b32" => return some(Scalar, &[B32, Scalar]),
        "v_writelane_b32" => return some(B32, &[Scalar, Scalar]),
        "v_mad_u32_u16" | "v_mad_i32_i16" => return some(B32, &[B16, B16, B32]),
        "v_fma_mix_f32" => return some(F32, &[Mix, Mix, Mix]),
        "v_fma_mixlo_f16" | "v_fma_mixhi_f16" => return some(F16, &[Mix, Mix, Mix]),
        "v_dot2_f32_f16" => return some(F32, &[PackF16, PackF16, F32]),
        "v_dot2c_f32_f16" => return some(F32, &[PackF16, PackF16]),
        "v_dot2_i32_i16" | "v_dot2_u32_u16" => return some(B32, &[PackB16, PackB16, B32]),
        "v_qsad_pk_u16_u8" | "v_mqsad_pk_u16_u8" => return some(B64, &[B64, B32, B64]),
        "v_mqsad_u32_u8" => return some(Words(4), &[B64, B32, Words(4)]),
        "v_cvt_pk_u8_f32" => return some(B32, &[F32, B32, B32]),
        "v_sat_pk_u8_i16" => return some(B32, &[B32]),
        "v_cvt_pkaccum_u8_f32" => return some(B32, &[F32, B32]),
        _ => {}
    }
    let types = types(name);
    let (dst, src) = (types.first().copied().unwrap_or(B32), types.last().copied().unwrap_or(B32));
    if name.starts_with("v_pk_") {
        return some(dst.packed(), &vec![src.packed(); count]);
    }
    if name.starts_with("v_cvt_pk") || name == "v_pack_b32_f16" {
        return some(B32, &vec![src; count]);
    }
    some(dst, &vec![src; count])
}

/// Operands of a scalar instruction with `count` sources.
pub fn scalar_signature(name: &'static str, count: usize) -> Signature {
    use Type::*;
    let some = |dst, src: &[Type]| Signature { dst: Some(dst), mask: false, src: src.to_vec() };
    match name {
        "s_getpc_b64" => return some(B64, &[]),
        "s_setpc_b64" | "s_rfe_b64" => return Signature { dst: None, mask: false, src: vec![B64] },
        "s_lshl_b64" | "s_lshr_b64" | "s_ashr_i64" | "s_bfe_u64" | "s_bfe_i64" => {
            return some(B64, &[B64, B32]);
        }
        "s_bfm_b64" => return some(B64, &[B32, B32]),
        "s_bitset0_b64" | "s_bitset1_b64" => return some(B64, &[B32]),
        "s_bitcmp0_b64" | "s_bitcmp1_b64" => {
            return Signature { dst: None, mask: false, src: vec![B64, B32] };
        }
        _ => {}
    }
    let widen = |ty: Type| if ty == B16 { B32 } else { ty };
    let types = types(name);
    let dst = types.first().copied().map_or(B32, widen);
    let src = types.last().copied().map_or(B32, widen);
    let dst =
        if name.starts_with("s_cmp") || name.starts_with("s_bitcmp") { None } else { Some(dst) };
    Signature { dst, mask: false, src: vec![src; count] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix_shapes() {
        let shape = |name| {
            let m = matrix(name).unwrap();
            (m.rows, m.columns, m.depth, m.blocks, m.kind)
        };
        assert_eq!(shape("v_mfma_f32_32x32x8bf16_1k"), (32, 32, 8, 1, "bf16_1k"));
        assert_eq!(shape("v_mfma_f32_16x16x16f16"), (16, 16, 16, 1, "f16"));
        assert_eq!(shape("v_mfma_f32_32x32x2f32"), (32, 32, 2, 1, "f32"));
        assert_eq!(shape("v_mfma_f32_32x32x1f32"), (32, 32, 1, 2, "f32"));
        assert_eq!(shape("v_mfma_f32_4x4x1f32"), (4, 4, 1, 16, "f32"));
        assert_eq!(shape("v_mfma_f32_32x32x4bf16"), (32, 32, 4, 1, "bf16"));
        assert_eq!(shape("v_mfma_f64_16x16x4f64"), (16, 16, 4, 1, "f64"));
        assert_eq!(shape("v_mfma_i32_16x16x16i8"), (16, 16, 16, 1, "i8"));
    }
}
