// What writers that were killed have left behind.
#pragma once

#include <filesystem>
#include <string_view>

namespace dmc {

// AtomicFile writes to NAME.tmp-PROCESS, locked (flock), until all is there.
inline constexpr std::string_view kTemporaryMark = ".tmp-";

// Removes the temporary files of AtomicFile in `folder` whose writers are gone; those that somebody
// is writing stay. A folder that cannot be read has none. No recursion.
void remove_leftovers(const std::filesystem::path& folder);

}  // namespace dmc
