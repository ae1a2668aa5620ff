v_add_f32_e64 v1, -v2, |v3| clamp mul:2
v_add_f32_e64 v1, -|v2|, s3 div:2
v_fma_f32 v1, v2, -v3, |v4|
v_fma_f32 v1, v2, s3, 1.0
v_add_f64 v[2:3], v[4:5], -1.0
v_add_f16_e64 v1, 0.5, -v2
v_fma_f16 v1, v2, v3, v4 op_sel:[0,1,0,1]
v_mad_u16 v1, v2, v3, v4
v_add_u32_sdwa v1, v2, v3 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_2 src1_sel:DWORD
v_add_f32_sdwa v1, -v2, |v3| clamp dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:DWORD
v_mov_b32_sdwa v1, sext(v2) dst_sel:BYTE_3 dst_unused:UNUSED_SEXT src0_sel:WORD_1
v_cmp_lt_u32_sdwa s[4:5], v1, s2 src0_sel:BYTE_0 src1_sel:WORD_1
v_cndmask_b32_sdwa v1, v2, v3, vcc dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_0 src1_sel:DWORD
v_mov_b32_dpp v1, v2 quad_perm:[3,2,1,0] row_mask:0xf bank_mask:0x5
v_mov_b32_dpp v1, v2 row_shl:3 row_mask:0xa bank_mask:0xf bound_ctrl:0
v_add_f32_dpp v1, -v2, |v3| row_ror:5 row_mask:0xf bank_mask:0xf
v_add_u32_dpp v1, v2, v3 row_bcast:15 row_mask:0xa bank_mask:0xf
v_max_f32_dpp v1, v2, v3 wave_shr:1 row_mask:0xf bank_mask:0xf
v_min_u32_dpp v1, v2, v3 row_half_mirror row_mask:0xf bank_mask:0xf
v_mov_b32_dpp v1, v2 row_newbcast:3 row_mask:0xf bank_mask:0xf
v_pk_fma_f16 v1, v2, v3, v4 op_sel:[1,0,0] op_sel_hi:[0,1,1] neg_lo:[0,1,0] neg_hi:[1,0,0]
v_pk_add_u16 v1, v2, 1 op_sel_hi:[1,0] clamp
v_pk_fma_f32 v[2:3], v[4:5], s[6:7], v[8:9] op_sel:[0,1,0] op_sel_hi:[1,0,1]
v_pk_mul_f32 v[2:3], v[4:5], v[6:7] op_sel_hi:[1,0]
v_pk_mov_b32 v[2:3], v[4:5], v[6:7] op_sel:[1,0]
v_fma_mix_f32 v1, v2, -v3, v4 op_sel:[1,0,0] op_sel_hi:[1,1,0]
v_fma_mixlo_f16 v1, v2, v3, v4
v_dot2_f32_f16 v1, v2, v3, v4
v_dot4_i32_i8 v1, v2, v3, v4
v_mad_u64_u32 v[2:3], s[4:5], v6, v7, v[8:9]
v_div_scale_f32 v1, vcc, v2, v3, v2
v_div_scale_f64 v[2:3], s[4:5], v[6:7], v[8:9], v[6:7]
v_div_fmas_f32 v1, v2, v3, v4
v_perm_b32 v1, v2, v3, s4
v_readlane_b32 s4, v5, 3
v_writelane_b32 v5, s4, m0
v_readfirstlane_b32 s4, v5
v_lshlrev_b64 v[2:3], 3, v[4:5]
v_cmp_class_f32_e64 s[4:5], v1, v2
v_cmpx_gt_u32_e32 vcc, 5, v1
v_cmp_nge_f64_e64 s[8:9], v[2:3], |v[4:5]|
v_madak_f32 v1, v2, v3, 0x40490fdb
v_madmk_f32 v1, v2, 0x40490fdb, v3
v_addc_co_u32_e32 v1, vcc, v2, v3, vcc
v_subb_co_u32_e64 v1, s[4:5], v2, v3, s[6:7]
v_mov_b32_e32 v1, 0x12345678
v_mov_b32_e32 v1, -16
v_mov_b32_e32 v1, 0.15915494
v_swap_b32 v1, v2
v_accvgpr_read_b32 v1, a2
v_accvgpr_write_b32 a1, v2
v_accvgpr_write_b32 a1, 0
v_accvgpr_mov_b32 a1, a2
v_mfma_f32_32x32x8bf16_1k a[0:15], v[2:3], v[4:5], a[0:15]
v_mfma_f32_32x32x8f16 v[16:31], v[2:3], a[4:5], 0
v_mfma_f32_16x16x16bf16_1k v[16:19], v[2:3], v[4:5], v[16:19]
v_mfma_f32_16x16x16f16 a[0:3], a[4:5], v[4:5], 1.0
v_mfma_f32_32x32x2f32 v[16:31], v2, v4, v[16:31]
v_mfma_f32_16x16x4f32 v[16:19], v2, v4, v[16:19]
v_mfma_f32_4x4x1f32 v[16:19], v2, v4, v[16:19]
v_mfma_f32_16x16x1f32 v[16:31], v2, v4, v[16:31] cbsz:2 abid:3
v_mfma_f32_16x16x1f32 a[0:15], v2, a4, a[0:15] cbsz:1
v_mfma_f64_16x16x4f64 v[16:23], v[2:3], v[4:5], v[16:23]
v_mfma_i32_16x16x16i8 v[16:19], v2, v4, v[16:19]
s_mov_b32 s4, 0x12345678
s_mov_b64 s[4:5], exec
s_mov_b64 exec, -1
s_and_saveexec_b64 s[4:5], vcc
s_lshl_b64 s[4:5], s[6:7], 3
s_add_u32 s4, vcc_lo, exec_hi
s_cselect_b64 vcc, -1, 0
s_bfe_u32 s4, s5, 0x80008
s_movk_i32 s4, 0x1234
s_cmpk_gt_i32 s4, 0x10
s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 2), 3
s_getreg_b32 s4, hwreg(HW_REG_SH_MEM_BASES, 16, 16)
s_cmp_lg_u64 s[4:5], 0
s_getpc_b64 s[4:5]
s_swappc_b64 s[30:31], s[4:5]
s_bitcmp1_b32 s4, 3
s_pack_ll_b32_b16 s4, s5, s6
s_load_dwordx16 s[16:31], s[4:5], 0x40
s_load_dwordx2 s[6:7], s[4:5], s8
s_load_dword s6, s[4:5], -0x10 glc
s_buffer_load_dwordx4 s[8:11], s[4:7], 0x10
s_memtime s[4:5]
s_waitcnt vmcnt(3)
s_waitcnt vmcnt(20) lgkmcnt(2)
s_waitcnt vmcnt(0) expcnt(0) lgkmcnt(0)
s_nop 4
s_sleep 2
s_setprio 1
s_barrier
ds_write_b128 v1, v[4:7] offset:16
ds_write_b32 v1, a4
ds_read_b96 v[4:6], v1 offset:65520
ds_read2_b32 v[4:5], v1 offset0:3 offset1:9
ds_read2st64_b64 a[4:7], v1 offset1:9
ds_write2_b64 v1, v[2:3], v[4:5] offset0:1 offset1:2
ds_read_u8_d16_hi v1, v2
ds_add_rtn_u32 v1, v2, v3 offset:4
ds_cmpst_rtn_b64 v[2:3], v1, v[4:5], v[6:7]
ds_add_f32 v1, v2
ds_bpermute_b32 v1, v2, v3
ds_permute_b32 v1, v2, v3 offset:8
ds_swizzle_b32 v1, v2 offset:swizzle(SWAP,16)
ds_swizzle_b32 v1, v2 offset:swizzle(QUAD_PERM,0,1,2,3)
ds_swizzle_b32 v1, v2 offset:swizzle(REVERSE,8)
ds_swizzle_b32 v1, v2 offset:swizzle(BITMASK_PERM,"01pip")
global_load_dwordx4 v[4:7], v[2:3], off offset:-16
global_load_ushort v1, v2, s[4:5] offset:8 glc slc
global_load_short_d16_hi v1, v[2:3], off
global_store_dwordx3 v1, v[4:6], s[2:3]
global_store_dword v[2:3], a4, off scc
global_atomic_add_f32 v1, v2, s[4:5]
global_atomic_cmpswap_x2 v[2:3], v[4:5], v[6:9], off glc
global_atomic_pk_add_f16 v[2:3], v4, off
flat_load_dword v1, v[2:3] offset:16
flat_store_dwordx2 v[2:3], v[4:5]
flat_atomic_add_f64 v[2:3], v[4:5]
scratch_load_dword v1, v2, off offset:4
scratch_store_dword off, v1, s3 offset:4
buffer_load_dwordx4 v[4:7], v1, s[8:11], s3 offen offset:16
buffer_load_ubyte v1, off, s[8:11], 0 offset:4095
buffer_load_dword v1, v[2:3], s[8:11], 0 idxen offen glc
buffer_store_short v1, v2, s[8:11], 4 idxen
buffer_store_dwordx4 a[4:7], v1, s[8:11], 0 offen
buffer_atomic_add v1, v2, s[8:11], 0 offen glc
buffer_wbinvl1_vol
buffer_wbl2
buffer_invl2
