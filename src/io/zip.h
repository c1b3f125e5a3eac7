// The part of the zip format that torch.save writes: stored entries, zip64, one volume.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace puna::io {

/// One stored file; both views point into the archive.
struct ZipEntry {
  std::string_view name;
  std::span<const std::byte> data;
};

/// The archive's entries in the order of its directory. Throws Error(`where`) when it is no zip, is truncated, has
/// compressed, encrypted, overlapping or duplicate entries, or its two headers of an entry disagree.
/// CRCs are not checked: that would read every tensor.
std::vector<ZipEntry> read_stored_zip(std::span<const std::byte> archive, std::string_view where);

}  // namespace puna::io
