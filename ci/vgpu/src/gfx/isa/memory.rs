//! Memory opcodes: each line is the first opcode and the names from it on.

/// Local data share.
pub const DS: &str = "
00 ds_add_u32 ds_sub_u32 ds_rsub_u32 ds_inc_u32 ds_dec_u32 ds_min_i32 ds_max_i32 ds_min_u32
08 ds_max_u32 ds_and_b32 ds_or_b32 ds_xor_b32 ds_mskor_b32 ds_write_b32 ds_write2_b32
0f ds_write2st64_b32 ds_cmpst_b32 ds_cmpst_f32 ds_min_f32 ds_max_f32 ds_nop ds_add_f32
1e ds_write_b8 ds_write_b16 ds_add_rtn_u32 ds_sub_rtn_u32
22 ds_rsub_rtn_u32 ds_inc_rtn_u32 ds_dec_rtn_u32 ds_min_rtn_i32 ds_max_rtn_i32
27 ds_min_rtn_u32 ds_max_rtn_u32 ds_and_rtn_b32 ds_or_rtn_b32 ds_xor_rtn_b32
2c ds_mskor_rtn_b32 ds_wrxchg_rtn_b32 ds_wrxchg2_rtn_b32 ds_wrxchg2st64_rtn_b32
30 ds_cmpst_rtn_b32 ds_cmpst_rtn_f32 ds_min_rtn_f32 ds_max_rtn_f32 ds_wrap_rtn_b32
35 ds_add_rtn_f32 ds_read_b32 ds_read2_b32 ds_read2st64_b32 ds_read_i8 ds_read_u8
3b ds_read_i16 ds_read_u16 ds_swizzle_b32 ds_permute_b32 ds_bpermute_b32 ds_add_u64
41 ds_sub_u64 ds_rsub_u64 ds_inc_u64 ds_dec_u64 ds_min_i64 ds_max_i64 ds_min_u64 ds_max_u64
49 ds_and_b64 ds_or_b64 ds_xor_b64 ds_mskor_b64 ds_write_b64 ds_write2_b64 ds_write2st64_b64
50 ds_cmpst_b64 ds_cmpst_f64 ds_min_f64 ds_max_f64 ds_write_b8_d16_hi ds_write_b16_d16_hi
56 ds_read_u8_d16 ds_read_u8_d16_hi ds_read_i8_d16 ds_read_i8_d16_hi ds_read_u16_d16
5b ds_read_u16_d16_hi ds_add_f64
60 ds_add_rtn_u64 ds_sub_rtn_u64 ds_rsub_rtn_u64 ds_inc_rtn_u64 ds_dec_rtn_u64
65 ds_min_rtn_i64 ds_max_rtn_i64 ds_min_rtn_u64 ds_max_rtn_u64 ds_and_rtn_b64 ds_or_rtn_b64
6b ds_xor_rtn_b64 ds_mskor_rtn_b64 ds_wrxchg_rtn_b64 ds_wrxchg2_rtn_b64
6f ds_wrxchg2st64_rtn_b64 ds_cmpst_rtn_b64 ds_cmpst_rtn_f64 ds_min_rtn_f64 ds_max_rtn_f64
76 ds_read_b64 ds_read2_b64 ds_read2st64_b64
7c ds_add_rtn_f64
de ds_write_b96 ds_write_b128
fe ds_read_b96 ds_read_b128
";

/// Flat, global and scratch: the name follows which of them it is.
pub const FLAT: &str = "
10 load_ubyte load_sbyte load_ushort load_sshort load_dword load_dwordx2 load_dwordx3
17 load_dwordx4 store_byte store_byte_d16_hi store_short store_short_d16_hi store_dword
1d store_dwordx2 store_dwordx3 store_dwordx4 load_ubyte_d16 load_ubyte_d16_hi load_sbyte_d16
23 load_sbyte_d16_hi load_short_d16 load_short_d16_hi
40 atomic_swap atomic_cmpswap atomic_add atomic_sub atomic_smin atomic_umin atomic_smax
47 atomic_umax atomic_and atomic_or atomic_xor atomic_inc atomic_dec atomic_add_f32
4e atomic_pk_add_f16 atomic_add_f64 atomic_min_f64 atomic_max_f64
60 atomic_swap_x2 atomic_cmpswap_x2 atomic_add_x2 atomic_sub_x2 atomic_smin_x2
65 atomic_umin_x2 atomic_smax_x2 atomic_umax_x2 atomic_and_x2 atomic_or_x2 atomic_xor_x2
6b atomic_inc_x2 atomic_dec_x2
";

/// Buffers: the name follows `buffer_`.
pub const MUBUF: &str = "
10 load_ubyte load_sbyte load_ushort load_sshort load_dword load_dwordx2 load_dwordx3
17 load_dwordx4 store_byte store_byte_d16_hi store_short store_short_d16_hi store_dword
1d store_dwordx2 store_dwordx3 store_dwordx4 load_ubyte_d16 load_ubyte_d16_hi load_sbyte_d16
23 load_sbyte_d16_hi load_short_d16 load_short_d16_hi
28 wbl2 invl2
3e wbinvl1 wbinvl1_vol
40 atomic_swap atomic_cmpswap atomic_add atomic_sub atomic_smin atomic_umin atomic_smax
47 atomic_umax atomic_and atomic_or atomic_xor atomic_inc atomic_dec atomic_add_f32
4e atomic_pk_add_f16 atomic_add_f64 atomic_min_f64 atomic_max_f64
60 atomic_swap_x2 atomic_cmpswap_x2 atomic_add_x2 atomic_sub_x2 atomic_smin_x2
65 atomic_umin_x2 atomic_smax_x2 atomic_umax_x2 atomic_and_x2 atomic_or_x2 atomic_xor_x2
6b atomic_inc_x2 atomic_dec_x2
";
