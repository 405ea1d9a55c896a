// What happens where a mapped file has lost the pages that are read: somebody cut it short, or the
// disk failed. The system sends SIGBUS, which would end a program that serves many; here the lost
// pages become zeros, and who reads asks afterwards whether that was so.
#pragma once

#include <cstddef>

namespace dmc {

// From now on reading lost pages of the mapping gives zeros. As many mappings as a large model has
// files are watched; further ones are not. Signal handlers are changed once, by the first call.
void watch_mapping(void* data, size_t size);
void forget_mapping(void* data);
// Whether pages of a watched mapping were found lost.
bool mapping_was_cut(void* data);

}  // namespace dmc
