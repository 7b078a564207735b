// Instructions of the pickle machine that are read (CPython Lib/pickletools.py); all others are refused.
#pragma once

#include <cstdint>

namespace rat::pickle {

// clang-format off
enum Op : uint8_t {
  op_proto = 0x80, op_frame = 0x95, op_stop = '.', op_mark = '(', op_pop = '0', op_pop_mark = '1', op_none = 'N',
  op_true = 0x88, op_false = 0x89, op_int4 = 'J', op_int1 = 'K', op_int2 = 'M', op_long1 = 0x8a, op_float = 'G',
  op_text1 = 0x8c, op_text4 = 'X', op_text8 = 0x8d, op_bytes1 = 'C', op_bytes4 = 'B', op_empty_dict = '}',
  op_empty_list = ']', op_empty_tuple = ')', op_tuple = 't', op_tuple1 = 0x85, op_tuple2 = 0x86, op_tuple3 = 0x87,
  op_append = 'a', op_appends = 'e', op_set_item = 's', op_set_items = 'u', op_put1 = 'q', op_put4 = 'r',
  op_get1 = 'h', op_get4 = 'j', op_memoize = 0x94, op_global = 'c', op_stack_global = 0x93, op_reduce = 'R',
  op_build = 'b', op_new_object = 0x81, op_persistent_id = 'Q'
};
// clang-format on

}  // namespace rat::pickle
