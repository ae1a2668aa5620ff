//! Vector opcodes: each line is the first opcode and the names from it on.

/// Two sources, one of them a vector register.
pub const VOP2: &str = "
00 v_cndmask_b32 v_add_f32 v_sub_f32 v_subrev_f32 v_fmac_f64 v_mul_f32 v_mul_i32_i24
07 v_mul_hi_i32_i24 v_mul_u32_u24 v_mul_hi_u32_u24 v_min_f32 v_max_f32 v_min_i32 v_max_i32
0e v_min_u32 v_max_u32 v_lshrrev_b32 v_ashrrev_i32 v_lshlrev_b32 v_and_b32 v_or_b32
15 v_xor_b32 v_mac_f32 v_madmk_f32 v_madak_f32 v_add_co_u32 v_sub_co_u32 v_subrev_co_u32
1c v_addc_co_u32 v_subb_co_u32 v_subbrev_co_u32 v_add_f16 v_sub_f16 v_subrev_f16 v_mul_f16
23 v_mac_f16 v_madmk_f16 v_madak_f16 v_add_u16 v_sub_u16 v_subrev_u16 v_mul_lo_u16
2a v_lshlrev_b16 v_lshrrev_b16 v_ashrrev_i16 v_max_f16 v_min_f16 v_max_u16 v_max_i16
31 v_min_u16 v_min_i16 v_ldexp_f16 v_add_u32 v_sub_u32 v_subrev_u32 v_dot2c_f32_f16
38 v_dot2c_i32_i16 v_dot4c_i32_i8 v_dot8c_i32_i4 v_fmac_f32 v_pk_fmac_f16 v_xnor_b32
";

/// One source.
pub const VOP1: &str = "
00 v_nop v_mov_b32 v_readfirstlane_b32 v_cvt_i32_f64 v_cvt_f64_i32 v_cvt_f32_i32
06 v_cvt_f32_u32 v_cvt_u32_f32 v_cvt_i32_f32
0a v_cvt_f16_f32 v_cvt_f32_f16 v_cvt_rpi_i32_f32 v_cvt_flr_i32_f32 v_cvt_off_f32_i4
0f v_cvt_f32_f64 v_cvt_f64_f32 v_cvt_f32_ubyte0 v_cvt_f32_ubyte1 v_cvt_f32_ubyte2
14 v_cvt_f32_ubyte3 v_cvt_u32_f64 v_cvt_f64_u32 v_trunc_f64 v_ceil_f64 v_rndne_f64
1a v_floor_f64 v_fract_f32 v_trunc_f32 v_ceil_f32 v_rndne_f32 v_floor_f32 v_exp_f32
21 v_log_f32 v_rcp_f32 v_rcp_iflag_f32 v_rsq_f32 v_rcp_f64 v_rsq_f64 v_sqrt_f32 v_sqrt_f64
29 v_sin_f32 v_cos_f32 v_not_b32 v_bfrev_b32 v_ffbh_u32 v_ffbl_b32 v_ffbh_i32
30 v_frexp_exp_i32_f64 v_frexp_mant_f64 v_fract_f64 v_frexp_exp_i32_f32 v_frexp_mant_f32
35 v_clrexcp
37 v_screen_partition_4se_b32
39 v_cvt_f16_u16 v_cvt_f16_i16 v_cvt_u16_f16 v_cvt_i16_f16 v_rcp_f16 v_sqrt_f16 v_rsq_f16
40 v_log_f16 v_exp_f16 v_frexp_mant_f16 v_frexp_exp_i16_f16 v_floor_f16 v_ceil_f16
46 v_trunc_f16 v_rndne_f16 v_fract_f16 v_sin_f16 v_cos_f16 v_exp_legacy_f32 v_log_legacy_f32
4d v_cvt_norm_i16_f16 v_cvt_norm_u16_f16 v_sat_pk_u8_i16
51 v_swap_b32 v_accvgpr_mov_b32
";

/// What only the long encoding has. Below lie VOPC at 0, VOP2 at 0x100 and VOP1 at 0x140.
pub const VOP3: &str = "
1c0 v_mad_legacy_f32 v_mad_f32 v_mad_i32_i24 v_mad_u32_u24 v_cubeid_f32 v_cubesc_f32
1c6 v_cubetc_f32 v_cubema_f32 v_bfe_u32 v_bfe_i32 v_bfi_b32 v_fma_f32 v_fma_f64 v_lerp_u8
1ce v_alignbit_b32 v_alignbyte_b32 v_min3_f32 v_min3_i32 v_min3_u32 v_max3_f32 v_max3_i32
1d5 v_max3_u32 v_med3_f32 v_med3_i32 v_med3_u32 v_sad_u8 v_sad_hi_u8 v_sad_u16 v_sad_u32
1dd v_cvt_pk_u8_f32 v_div_fixup_f32 v_div_fixup_f64 v_div_scale_f32 v_div_scale_f64
1e2 v_div_fmas_f32 v_div_fmas_f64 v_msad_u8 v_qsad_pk_u16_u8 v_mqsad_pk_u16_u8
1e7 v_mqsad_u32_u8 v_mad_u64_u32 v_mad_i64_i32 v_mad_legacy_f16 v_mad_legacy_u16
1ec v_mad_legacy_i16 v_perm_b32 v_fma_legacy_f16 v_div_fixup_legacy_f16 v_cvt_pkaccum_u8_f32
1f1 v_mad_u32_u16 v_mad_i32_i16 v_xad_u32 v_min3_f16 v_min3_i16 v_min3_u16 v_max3_f16
1f8 v_max3_i16 v_max3_u16 v_med3_f16 v_med3_i16 v_med3_u16 v_lshl_add_u32 v_add_lshl_u32
1ff v_add3_u32 v_lshl_or_b32 v_and_or_b32 v_or3_b32 v_mad_f16 v_mad_u16 v_mad_i16 v_fma_f16
207 v_div_fixup_f16
280 v_add_f64 v_mul_f64 v_min_f64 v_max_f64 v_ldexp_f64 v_mul_lo_u32 v_mul_hi_u32
287 v_mul_hi_i32 v_ldexp_f32 v_readlane_b32 v_writelane_b32 v_bcnt_u32_b32
28c v_mbcnt_lo_u32_b32 v_mbcnt_hi_u32_b32
28f v_lshlrev_b64 v_lshrrev_b64 v_ashrrev_i64 v_trig_preop_f64 v_bfm_b32
294 v_cvt_pknorm_i16_f32 v_cvt_pknorm_u16_f32 v_cvt_pkrtz_f16_f32 v_cvt_pk_u16_u32
298 v_cvt_pk_i16_i32 v_cvt_pknorm_i16_f16 v_cvt_pknorm_u16_f16
29c v_add_i32 v_sub_i32 v_add_i16 v_sub_i16 v_pack_b32_f16 v_mul_legacy_f32
";

/// Packed arithmetic and matrix products.
pub const VOP3P: &str = "
00 v_pk_mad_i16 v_pk_mul_lo_u16 v_pk_add_i16 v_pk_sub_i16 v_pk_lshlrev_b16 v_pk_lshrrev_b16
06 v_pk_ashrrev_i16 v_pk_max_i16 v_pk_min_i16 v_pk_mad_u16 v_pk_add_u16 v_pk_sub_u16
0c v_pk_max_u16 v_pk_min_u16 v_pk_fma_f16 v_pk_add_f16 v_pk_mul_f16 v_pk_min_f16 v_pk_max_f16
20 v_fma_mix_f32 v_fma_mixlo_f16 v_fma_mixhi_f16 v_dot2_f32_f16
26 v_dot2_i32_i16 v_dot2_u32_u16 v_dot4_i32_i8 v_dot4_u32_u8 v_dot8_i32_i4 v_dot8_u32_u4
30 v_pk_fma_f32 v_pk_mul_f32 v_pk_add_f32 v_pk_mov_b32
40 v_mfma_f32_32x32x1f32 v_mfma_f32_16x16x1f32 v_mfma_f32_4x4x1f32
44 v_mfma_f32_32x32x2f32 v_mfma_f32_16x16x4f32
48 v_mfma_f32_32x32x4f16 v_mfma_f32_16x16x4f16 v_mfma_f32_4x4x4f16
4c v_mfma_f32_32x32x8f16 v_mfma_f32_16x16x16f16
50 v_mfma_i32_32x32x4i8 v_mfma_i32_16x16x4i8 v_mfma_i32_4x4x4i8
54 v_mfma_i32_32x32x8i8 v_mfma_i32_16x16x16i8
58 v_accvgpr_read_b32 v_accvgpr_write_b32
63 v_mfma_f32_32x32x4bf16_1k v_mfma_f32_16x16x4bf16_1k v_mfma_f32_4x4x4bf16_1k
66 v_mfma_f32_32x32x8bf16_1k v_mfma_f32_16x16x16bf16_1k v_mfma_f32_32x32x2bf16
69 v_mfma_f32_16x16x2bf16
6b v_mfma_f32_4x4x2bf16 v_mfma_f32_32x32x4bf16 v_mfma_f32_16x16x8bf16 v_mfma_f64_16x16x4f64
6f v_mfma_f64_4x4x4f64
";

/// Names of comparisons: sixteen of floats, eight of integers, each without and with a write of exec.
pub fn comparisons() -> Vec<(u16, String)> {
    const FLOAT: [&str; 16] = [
        "f", "lt", "eq", "le", "gt", "lg", "ge", "o", "u", "nge", "nlg", "ngt", "nle", "neq",
        "nlt", "tru",
    ];
    const INTEGER: [&str; 8] = ["f", "lt", "eq", "le", "gt", "ne", "ge", "t"];
    let mut list = Vec::new();
    for (exec, cmp) in ["v_cmp", "v_cmpx"].into_iter().enumerate() {
        for (i, ty) in ["f32", "f64", "f16"].into_iter().enumerate() {
            list.push((0x10 + 2 * i as u16 + exec as u16, format!("{cmp}_class_{ty}")));
        }
        for (base, ty) in [(0x20, "f16"), (0x40, "f32"), (0x60, "f64")] {
            for (i, condition) in FLOAT.into_iter().enumerate() {
                let opcode = base + 0x10 * exec + i;
                list.push((opcode as u16, format!("{cmp}_{condition}_{ty}")));
            }
        }
        for (base, ty) in [
            (0xa0, "i16"),
            (0xa8, "u16"),
            (0xc0, "i32"),
            (0xc8, "u32"),
            (0xe0, "i64"),
            (0xe8, "u64"),
        ] {
            for (i, condition) in INTEGER.into_iter().enumerate() {
                let opcode = base + 0x10 * exec + i;
                list.push((opcode as u16, format!("{cmp}_{condition}_{ty}")));
            }
        }
    }
    list
}
