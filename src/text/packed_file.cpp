#include "text/packed_file.h"

#include <bzlib.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/human.h"

namespace dmc::text {
namespace fs = std::filesystem;
namespace {

constexpr size_t kChunk = size_t{1} << 20;

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw data_error(path.string() + ": " + what);
}

// `read(buffer, size)` gives the number of bytes unpacked, 0 at the end, less for damage.
std::string unpack(const fs::path& path, size_t limit,
                   const std::function<int(char*, unsigned)>& read) {
  std::string bytes;
  std::string chunk(kChunk, '\0');
  for (;;) {
    const int count = read(chunk.data(), static_cast<unsigned>(kChunk));
    if (count < 0) fail(path, "is damaged: it cannot be unpacked");
    if (count == 0) return bytes;
    bytes.append(chunk, 0, static_cast<size_t>(count));
    if (bytes.size() > limit) {
      fail(path, "holds more than " + human_bytes(static_cast<double>(limit)));
    }
  }
}

std::string read_gz(const fs::path& path, size_t limit) {
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) fail(path, "cannot be opened");
  return unpack(path, limit, [&](char* out, unsigned size) {
    const int count = gzread(file.get(), out, size);
    int error = Z_OK;
    gzerror(file.get(), &error);
    return error == Z_OK || error == Z_STREAM_END ? count : -1;  // Z_BUF_ERROR: cut short
  });
}

std::string read_bz2(const fs::path& path, size_t limit) {
  const std::unique_ptr<std::FILE, decltype(&std::fclose)> file(std::fopen(path.c_str(), "rb"),
                                                                std::fclose);
  if (!file) fail(path, "cannot be opened");
  int status = BZ_OK;
  BZFILE* const stream = BZ2_bzReadOpen(&status, file.get(), 0, 0, nullptr, 0);
  const std::unique_ptr<void, void (*)(void*)> closer(stream, [](void* opened) {
    int ignored;
    BZ2_bzReadClose(&ignored, opened);
  });
  return unpack(path, limit, [&](char* out, unsigned size) {
    if (status == BZ_STREAM_END) return 0;
    const int count = BZ2_bzRead(&status, stream, out, static_cast<int>(size));
    return status == BZ_OK || status == BZ_STREAM_END ? count : -1;
  });
}

// One frame or several behind each other. A frame that ends too early is damage, too.
class ZstdStream {
 public:
  explicit ZstdStream(const fs::path& path)
      : in_(path, std::ios::binary), context_(ZSTD_createDCtx(), ZSTD_freeDCtx), packed_(kChunk) {
    if (!in_ || !context_) fail(path, "cannot be opened");
  }

  int read(char* out, unsigned size) {
    ZSTD_outBuffer to{out, size, 0};
    while (to.pos == 0) {
      if (from_.pos == from_.size && !refill() && !more_to_come_) return frame_done_ ? 0 : -1;
      const size_t left = ZSTD_decompressStream(context_.get(), &to, &from_);
      if (ZSTD_isError(left)) return -1;
      frame_done_ = left == 0;
      more_to_come_ = !frame_done_ && to.pos == to.size;  // it may hold back what had no room
    }
    return static_cast<int>(to.pos);
  }

 private:
  bool refill() {
    in_.read(packed_.data(), static_cast<std::streamsize>(packed_.size()));
    from_ = {packed_.data(), static_cast<size_t>(in_.gcount()), 0};
    return from_.size > 0;
  }

  std::ifstream in_;
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context_;
  std::vector<char> packed_;
  ZSTD_inBuffer from_{nullptr, 0, 0};
  bool frame_done_ = false, more_to_come_ = false;
};

std::string read_zst(const fs::path& path, size_t limit) {
  ZstdStream stream(path);
  return unpack(path, limit, [&](char* out, unsigned size) { return stream.read(out, size); });
}

struct Packing {
  const char* extension;
  std::string (*read)(const fs::path&, size_t limit);
};
constexpr Packing kPackings[] = {{".gz", read_gz}, {".bz2", read_bz2}, {".zst", read_zst}};

const Packing* packing_of(const fs::path& path) {
  for (const Packing& packing : kPackings) {
    if (path.extension() == packing.extension) return &packing;
  }
  return nullptr;
}

}  // namespace

fs::path unpacked_name(const fs::path& path) {
  return packing_of(path) == nullptr ? path : path.parent_path() / path.stem();
}

std::string read_unpacked(const fs::path& path, size_t limit) {
  const Packing* const packing = packing_of(path);
  if (packing == nullptr) return read_text_file(path, limit);
  // Files of /proc count as regular ones without a size, and some never end.
  if (RegularFile(path).size() == 0) throw data_error(path.string() + ": is empty");
  return packing->read(path, limit);
}

}  // namespace dmc::text
