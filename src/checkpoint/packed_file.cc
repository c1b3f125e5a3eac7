#include "checkpoint/packed_file.h"

#include <algorithm>
#include <ranges>
#include <utility>

#include <fmt/ranges.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/parallel_for.h"
#include "base/progress.h"
#include "checkpoint/save.h"
#include "checkpoint/scalar_type.h"
#include "io/direct_reader.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace puna::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "puna-packed-1";
constexpr const char* kRemedy = "is the file whole, and config.json of the same model?";
constexpr int64_t kPieceElements = int64_t{1} << 20;  // that a thread packs at a time

/// A part of the file that is read as a whole.
struct Block {
  struct Part {
    size_t row;  // of the parameter table
    int64_t matrix;
    int64_t offset;  // in the block
  };
  std::string tensor;
  std::vector<Part> parts;
  int64_t bytes = 0;
};

kernels::WeightShape matrix_shape(const arch::ParamRow& row, const kernels::WeightFormat& format) {
  // Linears are [out, in], routed experts [E, in, out].
  return row.shape.size() == 3 ? kernels::WeightShape{row.shape[2], row.shape[1], format}
                               : kernels::WeightShape{row.shape[0], row.shape[1], format};
}

int64_t num_matrices(const arch::ParamRow& row) { return row.shape.size() == 3 ? row.shape[0] : 1; }

/// The packed rows' matrices by name.
using Shapes = std::map<std::string, kernels::WeightShapes>;

int64_t padded(int64_t bytes) {
  return (bytes + io::kDirectAlignment - 1) / io::kDirectAlignment * io::kDirectAlignment;
}

/// The blocks in the order of the file. An expert's gate_up and down lie in one block.
std::vector<Block> blocks_of(const std::vector<arch::ParamRow>& rows, const Shapes& shapes, const std::string& where) {
  std::vector<Block> blocks;
  const auto bytes = [&](size_t row, int64_t matrix) {
    return kernels::packed_layout(shapes.at(rows[row].name)[matrix]).total_bytes;
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    const arch::ParamRow& row = rows[i];
    if (!shapes.contains(row.name)) continue;
    if (row.shape.size() == 2) {
      blocks.push_back({row.name, {{i, 0, 0}}, padded(bytes(i, 0))});
      continue;
    }
    const bool pair = row.shape.size() == 3 && i + 1 < rows.size() && rows[i + 1].kind == row.kind &&
                      rows[i + 1].layer == row.layer && shapes.contains(rows[i + 1].name);
    if (!pair) fail(where, "'{}' is packed alone; {}", row.name, kRemedy);
    const std::string prefix = row.name.substr(0, row.name.rfind('.'));
    for (int64_t e = 0; e < row.shape[0]; ++e) {
      const int64_t gate_up = bytes(i, e), down = bytes(i + 1, e);
      blocks.push_back({fmt::format("{}.{}", prefix, e), {{i, e, 0}, {i + 1, e, gate_up}}, padded(gate_up + down)});
    }
    ++i;
  }
  return blocks;
}

kernels::WeightFormat format_from(const Json& json, const std::string& where) {
  kernels::WeightFormat format;
  int64_t bits = 0;
  try {
    for (const char* key : {"bits", "group"})
      if (!json.at(key).is_number_integer())
        fail(where, "'{}' of its 'rows' is {}; {}", key, json[key].dump(), kRemedy);
    bits = json.at("bits").get<int64_t>();
    format.group = json.at("group").get<int64_t>();
    format.channel_scales = json.at("channel_scales").get<bool>();
    format.zeros = json.at("zeros").get<bool>();
    format.floats = json.value("floats", false);
  } catch (const Json::exception&) {
    fail(where, "its 'rows' lack a format; {}", kRemedy);
  }
  format.bits = static_cast<int>(std::clamp<int64_t>(bits, 0, 64));
  if (format == kernels::WeightFormat::bf16() || format == kernels::WeightFormat::e4m3()) return format;
  if (format.floats || ((bits < 2 || bits > 4) && bits != 8) || (format.group != 32 && format.group != 128))
    fail(where, "{} bits in groups of {} are no packed format; {}", bits, format.group, kRemedy);
  return format;
}

Json format_json(const kernels::WeightFormat& format) {
  Json json = {{"bits", format.bits},
               {"group", format.group},
               {"channel_scales", format.channel_scales},
               {"zeros", format.zeros}};
  if (format.floats) json["floats"] = true;
  return json;
}

std::string format_text(const kernels::WeightFormat& format) {
  if (format.floats) return format.bits == 16 ? "BF16" : "FP8";
  return format.channel_scales ? fmt::format("INT{}", format.bits)
                               : fmt::format("INT{} group {}", format.bits, format.group);
}

/// One for all matrices, or a list of theirs.
Json formats_json(const std::vector<kernels::WeightFormat>& formats) {
  if (std::ranges::all_of(formats, [&](const auto& format) { return format == formats[0]; }))
    return format_json(formats[0]);
  Json json = Json::array();
  for (const kernels::WeightFormat& format : formats) json.push_back(format_json(format));
  return json;
}

/// The inverse, of a header that anyone may have written. As many formats as the row has matrices.
kernels::WeightShapes shapes_from(const Json& json, const arch::ParamRow& row, const std::string& where) {
  const Json& first = json.is_array() && !json.empty() ? json[0] : json;
  kernels::WeightShapes shapes(matrix_shape(row, format_from(first, where)), num_matrices(row));
  if (!json.is_array()) return shapes;
  if (std::ssize(json) != shapes.count())
    fail(where, "'{}' has {} formats for {} matrices; {}", row.name, json.size(), shapes.count(), kRemedy);
  for (size_t i = 0; i < json.size(); ++i) {
    shapes.formats[i] = format_from(json[i], where);
    if (!shapes.formats[i].takes_rows_of(shapes.formats[0]))
      fail(where, "'{}' has formats that take other rows than each other; {}", row.name, kRemedy);
  }
  return shapes;
}

at::ScalarType dense_type(const ModelSource& source) {
  const DType dtype = source.config().dtype;
  return *scalar_type(dtype == DType::F32 || dtype == DType::F16 ? dtype : DType::BF16);
}

class PackedWriter {
 public:
  PackedWriter(const ModelSource& source, const fs::path& file, int64_t threads, const std::atomic<bool>* interrupt)
      : source_(source), file_(file), threads_(threads), interrupt_(interrupt), dense_(dense_type(source)) {
    Json rows = Json::object();
    for (const arch::ParamRow& row : source.rows())
      if (is_packable(source, row)) {
        const auto integers = source.integers(row);
        shapes_[row.name] =
            integers ? integers->shapes
                     : kernels::WeightShapes(matrix_shape(row, kernels::WeightFormat::bf16()), num_matrices(row));
      }
    // An expert is one block, so its two matrices are packed together or not at all.
    for (size_t i = 0; i + 1 < source.rows().size(); ++i) {
      const std::string &a = source.rows()[i].name, &b = source.rows()[i + 1].name;
      const bool experts = source.rows()[i].shape.size() == 3 && source.rows()[i + 1].shape.size() == 3;
      if (experts && shapes_.contains(a) != shapes_.contains(b)) shapes_.erase(a), shapes_.erase(b);
    }
    for (const auto& [name, shapes] : shapes_) rows[name] = formats_json(shapes.formats);
    metadata_ = {{"format", kFormat}, {"rows", rows.dump()}};
    blocks_ = blocks_of(source.rows(), shapes_, file.string());
    for (const Block& block : blocks_)
      specs_.push_back({block.tensor, DType::U8, {block.bytes}}), bytes_ += block.bytes;
    for (const arch::ParamRow& row : source.rows()) {
      if (shapes_.contains(row.name)) continue;
      specs_.push_back({row.name, dtype_of(dense_).value(), row.shape});
      bytes_ += c10::multiply_integers(row.shape) * static_cast<int64_t>(c10::elementSize(dense_));
    }
  }

  int64_t bytes() const { return bytes_; }

  void write() {
    Progress progress("Packing", bytes_, Progress::Unit::kBytes);
    io::SafetensorsWriter writer(file_, specs_, metadata_, io::kDirectAlignment);
    for (const Block& block : blocks_) {
      int64_t written = 0;
      std::erase_if(loaded_, [&](const auto& one) {
        return std::ranges::none_of(block.parts, [&](const Block::Part& part) { return part.row == one.first; });
      });
      for (const Block::Part& part : block.parts) written += write_matrix(writer, part, progress);
      const std::vector<std::byte> rest(static_cast<size_t>(block.bytes - written));
      if (!rest.empty()) writer.write(rest);
    }
    for (const arch::ParamRow& row : source_.rows()) {
      if (shapes_.contains(row.name)) continue;
      stop_if_interrupted(interrupt_);
      const at::Tensor values = source_.load(row, dense_).contiguous();
      writer.write({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
      progress.add(static_cast<int64_t>(values.nbytes()));
    }
    writer.commit();
  }

 private:
  /// Whole tiles at a time, so that a large matrix need not be in memory. Returns the bytes.
  int64_t write_matrix(io::SafetensorsWriter& writer, const Block::Part& part, Progress& progress) {
    const arch::ParamRow& row = source_.rows()[part.row];
    const kernels::WeightShape shape = shapes_.at(row.name)[part.matrix];
    const kernels::PackedLayout layout = kernels::packed_layout(shape);
    const int64_t tile = kernels::kTileOutputs, step = std::max<int64_t>(1, kPieceElements / (shape.k * tile)) * tile;
    const int64_t piece_bytes = step / tile * layout.tile_bytes, at_once = std::max<int64_t>(1, threads_) * step;
    const at::Tensor values = shape.format == kernels::WeightFormat::bf16() ? bf16_matrix(part) : at::Tensor();
    std::vector<std::byte> memory(static_cast<size_t>(threads_ * piece_bytes) + kernels::kPackedAlignment);
    auto* packed =
        reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + kernels::kPackedAlignment - 1) /
                                     kernels::kPackedAlignment * kernels::kPackedAlignment);
    for (int64_t first = 0; first < shape.n; first += at_once) {
      stop_if_interrupted(interrupt_);
      const int64_t end = std::min(shape.n, first + at_once), pieces = (end - first + step - 1) / step;
      parallel_for(pieces, threads_, [&](int64_t i) {
        const int64_t begin = first + i * step;
        const int64_t last = std::min(end, begin + step);
        if (values.defined())
          pack_floats(values, shape, begin, last, packed + i * piece_bytes);
        else
          pack(row, part.matrix, shape, begin, last, packed + i * piece_bytes);
      });
      const int64_t tiles = (end - first + tile - 1) / tile;
      writer.write({packed, static_cast<size_t>(tiles * layout.tile_bytes)});
      progress.add(tiles * layout.tile_bytes);
    }
    return layout.total_bytes;
  }

  /// [out, in] of a row, of which all is loaded until another block has no part of it.
  at::Tensor bf16_matrix(const Block::Part& part) {
    at::Tensor& row = loaded_[part.row];
    if (!row.defined()) row = source_.load(source_.rows()[part.row], at::kBFloat16);
    return row.dim() == 3 ? row.select(0, part.matrix).t() : row;
  }

  static void pack_floats(const at::Tensor& values, const kernels::WeightShape& shape, int64_t begin, int64_t end,
                          std::byte* to) {
    const auto* from = static_cast<const uint16_t*>(values.const_data_ptr()) + begin * values.stride(0);
    kernels::pack_floats({end - begin, shape.k, shape.format}, from, values.stride(0), values.stride(1), nullptr, to);
  }

  void pack(const arch::ParamRow& row, int64_t matrix, const kernels::WeightShape& shape, int64_t begin, int64_t end,
            std::byte* to) const {
    const int64_t rows = end - begin, groups = shape.format.channel_scales ? 1 : kernels::packed_layout(shape).blocks;
    std::vector<int8_t> q(static_cast<size_t>(rows * shape.k)),
        zeros(static_cast<size_t>(shape.format.zeros ? rows * groups : 0));
    std::vector<float> scales(static_cast<size_t>(rows * groups));
    int8_t* zeros_or_none = shape.format.zeros ? zeros.data() : nullptr;
    source_.read_integers(row, matrix, begin, end, {q.data(), scales.data(), zeros_or_none});
    kernels::pack_weights({rows, shape.k, shape.format}, q.data(), scales.data(), zeros_or_none, to);
  }

  const ModelSource& source_;
  fs::path file_;
  int64_t threads_;
  const std::atomic<bool>* interrupt_;
  at::ScalarType dense_;
  Shapes shapes_;
  std::map<std::string, std::string> metadata_;
  std::vector<Block> blocks_;
  std::vector<io::TensorSpec> specs_;
  std::map<size_t, at::Tensor> loaded_;  // rows of BF16 that a block needs
  int64_t bytes_ = 0;
};

}  // namespace

PackedModel::PackedModel(const fs::path& dir) : file_(dir / kPackedFile), bytes_(io::MappedFile::open(file_)) {
  const fs::path config = dir / "config.json";
  config_ = arch::config_from_hf(read_json_file(config), config.string());
  rows_ = arch::parameter_table(config_);
  tensors_ = io::parse_safetensors(bytes_->bytes(), bytes_, file_.string());
  const auto format = tensors_.metadata.find("format"), rows = tensors_.metadata.find("rows");
  if (format == tensors_.metadata.end() || format->second != kFormat || rows == tensors_.metadata.end())
    fail(file_.string(), "is no packed model that this version reads; write it anew with: puna pack");
  const Json json = parse_json(rows->second, file_.string());
  if (!json.is_object()) fail(file_.string(), "its 'rows' are no object; {}", kRemedy);
  int64_t matrices = 0;  // before they are listed: config.json may promise any number
  for (const arch::ParamRow& row : rows_) matrices += json.contains(row.name) ? num_matrices(row) : 0;
  if (matrices > 2 * std::ssize(tensors_.tensors())) fail(file_.string(), "lacks tensors of the model; {}", kRemedy);
  Shapes shapes;
  for (const arch::ParamRow& row : rows_) {
    if (json.contains(row.name))
      shapes[row.name] = shapes_from(json[row.name], row, file_.string());
    else
      check_dense(row);
  }
  if (shapes.size() != json.size()) fail(file_.string(), "packs rows that the model does not have; {}", kRemedy);
  for (const auto& [name, of] : shapes) packed_[name] = {of, file_, bytes_, {}};
  for (const Block& block : blocks_of(rows_, shapes, file_.string())) {
    const int64_t offset = offset_of(block.tensor, block.bytes);
    for (const Block::Part& part : block.parts)
      packed_[rows_[part.row].name].places.push_back({offset, block.bytes, part.offset});
  }
}

void PackedModel::check_dense(const arch::ParamRow& row) const {
  const io::TensorView* view = tensors_.find(row.name);
  if (view == nullptr) fail(file_.string(), "'{}' is not there; {}", row.name, kRemedy);
  if (view->shape != row.shape)
    fail(file_.string(), "'{}' is {}, not {}; {}", row.name, io::shape_text(view->shape), io::shape_text(row.shape),
         kRemedy);
  const auto dtype = scalar_type(view->dtype);
  if (!dtype || !at::isFloatingType(*dtype))
    fail(file_.string(), "'{}' is {}, no float; {}", row.name, dtype_name(view->dtype), kRemedy);
}

/// Of a U8 tensor of just so many bytes, at a multiple of the alignment.
int64_t PackedModel::offset_of(const std::string& tensor, int64_t bytes) const {
  const io::TensorView* view = tensors_.find(tensor);
  if (view == nullptr) fail(file_.string(), "'{}' is not there; {}", tensor, kRemedy);
  const int64_t offset = view->bytes.data() - bytes_->bytes().data(), size = std::ssize(view->bytes);
  if (offset % io::kDirectAlignment != 0 || size != bytes)
    fail(file_.string(), "'{}' has {} bytes at {}, expected {} at a multiple of {}; {}", tensor, size, offset, bytes,
         io::kDirectAlignment, kRemedy);
  return offset;
}

std::string PackedModel::format() const {
  std::map<std::string, int64_t> bytes;
  for (const auto& [name, row] : packed_) {
    for (int64_t i = 0; i < row.shapes.count(); ++i)
      bytes[format_text(row.shapes.formats[i])] += kernels::packed_layout(row.shapes[i]).total_bytes;
  }
  std::vector<std::pair<int64_t, std::string>> most;
  for (const auto& [text, of_all] : bytes) most.emplace_back(-of_all, text);
  std::ranges::sort(most);
  return most.empty() ? "packed, dense" : fmt::format("packed {}", fmt::join(most | std::views::values, " + "));
}

const PackedRow* PackedModel::packed(const arch::ParamRow& row) const {
  const auto found = packed_.find(row.name);
  return found == packed_.end() ? nullptr : &found->second;
}

bool PackedModel::is_zero_copy(const arch::ParamRow& row, at::ScalarType dtype) const {
  const io::TensorView* view = packed(row) != nullptr ? nullptr : tensors_.find(row.name);
  return view != nullptr && scalar_type(view->dtype) == dtype && io::is_aligned(*view);
}

at::Tensor PackedModel::unpacked(const PackedRow& packed, const arch::ParamRow& row) const {
  if (!packed.shapes.floats())
    fail(file_.string(), "holds '{}' for the kernels alone; use the model that it was packed from", row.name);
  std::vector<at::Tensor> matrices;
  for (size_t i = 0; i < packed.places.size(); ++i) {
    matrices.push_back(at::empty({packed.shapes.n, packed.shapes.k}, at::kFloat));
    kernels::unpack_floats(packed.shapes[static_cast<int64_t>(i)], packed.matrix(i),
                           matrices.back().mutable_data_ptr<float>());
  }
  return row.shape.size() == 3 ? at::stack(matrices).transpose(1, 2).contiguous() : matrices[0];
}

at::Tensor PackedModel::load(const arch::ParamRow& row, at::ScalarType dtype) const {
  if (const PackedRow* of = packed(row); of != nullptr) return unpacked(*of, row).to(dtype);
  const io::TensorView* view = tensors_.find(row.name);
  PUNA_CHECK(view != nullptr, "no row '{}'", row.name);
  const at::ScalarType stored = *scalar_type(view->dtype);
  if (io::is_aligned(*view)) {
    void* data = const_cast<std::byte*>(view->bytes.data());
    return at::from_blob(
               data, view->shape, [owner = view->owner](void*) {}, stored)
        .to(dtype);
  }
  const at::Tensor copy = at::empty(view->shape, stored);
  std::copy(view->bytes.begin(), view->bytes.end(), static_cast<std::byte*>(copy.mutable_data_ptr()));
  return copy.to(dtype);
}

bool is_packable(const ModelSource& source, const arch::ParamRow& row) {
  return source.integers(row) || (dense_type(source) == at::kBFloat16 && packs_bf16(row));
}

void write_packed(const fs::path& source_dir, const ModelSource& source, const fs::path& out, int64_t threads,
                  const std::atomic<bool>* interrupt) {
  std::error_code ec;
  fs::create_directories(out, ec);
  if (ec) fail(out.string(), "cannot be made: {}", ec.message());
  for (const char* name : {"config.json", kPackedFile})
    if (io::path_exists(out / name)) fail(out.string(), "has {} already; name another directory", name);
  PackedWriter writer(source, out / kPackedFile, threads, interrupt);
  const auto space = fs::space(out, ec);
  if (!ec && static_cast<int64_t>(space.available) < writer.bytes())
    fail(out.string(), "the model needs {} on disk, {} are free; make room or choose another directory",
         format_bytes(writer.bytes()), format_bytes(static_cast<int64_t>(space.available)));
  writer.write();
  copy_side_files(fs::is_directory(source_dir, ec) ? source_dir : source_dir.parent_path(), out);
  arch::Llama4Config config = source.config();
  config.dtype = *dtype_of(dense_type(source));
  io::write_file(out / "config.json", arch::config_to_hf(config).dump(2) + "\n");
}

}  // namespace puna::checkpoint
