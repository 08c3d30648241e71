#include "lathe/model/packed_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/formats/quant/quantise.h"
#include "lathe/model/packed_source.h"
#include "lathe/tensor/panels.h"

namespace lathe {

namespace {

constexpr int64_t kPartBytes = int64_t{4} << 20;  // packed by a thread at a time

// Rows [first, last) of an entry, packed to `out` (of that part alone). Panels: first is a multiple of 16.
class PartPacker {
 public:
  PartPacker(const PackedEntry& entry, const SourceMatrix& source)
      : entry_(entry), source_(source), values_(static_cast<size_t>(entry.cols)) {}

  Status pack(int64_t first, int64_t last, std::byte* out) {
    if (entry_.panels) {
      for (int64_t r = first; r < last; r += kPanelRows) {
        LATHE_TRY(pack_one_panel(r, std::min(r + kPanelRows, last), out));
        out += panel_bytes(entry_.format, entry_.cols);
      }
      return {};
    }
    for (int64_t r = first; r < last; ++r) {
      LATHE_TRY(const std::byte* row, quantised_row(r, 0));
      copy_row(row, out);
      out += row_bytes(entry_.format, entry_.cols);
    }
    return {};
  }

 private:
  // Row r in the block format: the stored one, or quantised into slot `slot` of the buffer.
  Result<const std::byte*> quantised_row(int64_t r, int64_t slot) {
    if (entry_.transposed == 0 && source_.format() == entry_.quantised) {
      return source_.stored_row(entry_.source_row(r));
    }
    const int64_t bytes = row_bytes(entry_.quantised, entry_.cols);
    rows_.resize(static_cast<size_t>(kPanelRows * bytes));
    read_values(r);
    if (!all_finite(values_)) {
      return Error{Errc::kInvalidData, str(entry_.source, ": expected finite values, found another in ", where(r))};
    }
    std::byte* out = rows_.data() + slot * bytes;
    quantise_row(entry_.quantised, values_, out);
    return static_cast<const std::byte*>(out);
  }

  std::string where(int64_t r) const {
    return entry_.transposed == 0 ? str("row ", entry_.source_row(r)) : str("column ", r % source_.cols());
  }

  // values_ = row r.
  void read_values(int64_t r) {
    if (entry_.transposed == 0) {
      source_.read_row(entry_.source_row(r), values_);
      return;
    }
    const int64_t columns = source_.cols();
    read_square(r / columns);
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i] = square_[i * static_cast<size_t>(columns) + static_cast<size_t>(r % columns)];
    }
  }

  // Rows [transposed index, transposed (index + 1)) of the source; the last ones are kept.
  void read_square(int64_t index) {
    if (index == square_index_) return;
    square_index_ = index;
    const auto columns = static_cast<size_t>(source_.cols());
    square_.resize(static_cast<size_t>(entry_.transposed) * columns);
    for (int64_t i = 0; i < entry_.transposed; ++i) {
      source_.read_row(index * entry_.transposed + i,
                       std::span(square_).subspan(static_cast<size_t>(i) * columns, columns));
    }
  }

  Status pack_one_panel(int64_t first, int64_t last, std::byte* out) {
    const int64_t bytes = row_bytes(entry_.format, entry_.cols);
    WeightMatrix rows{
        .dtype = entry_.format, .rows = last - first, .cols = entry_.cols, .data = nullptr, .stride = bytes};
    for (int64_t r = first; r < last; ++r) {
      LATHE_TRY(const std::byte* row, quantised_row(r, r - first));
      // Stored rows lie one after the other, as quantised ones do in the buffer.
      if (r == first) rows.data = row;
    }
    pack_panel(rows, 0, out);
    return {};
  }

  // Block format to fp32, or to Q8_0 with the same scale and integers.
  void copy_row(const std::byte* row, std::byte* out) {
    if (entry_.format == DType::kF32) {
      decode_blocks(entry_.quantised, row, values_.data(), entry_.cols);
      std::memcpy(out, values_.data(), values_.size() * sizeof(float));
      return;
    }
    for (int64_t b = 0; b < entry_.cols / kBlock; ++b, out += block_bytes(DType::kQ8_0)) {
      const BlockValues block = read_block(entry_.quantised, row, b);
      std::memcpy(out, &block.d, 2);
      for (size_t i = 0; i < kBlock; ++i) out[2 + i] = static_cast<std::byte>(block.q[i] - block.offset);
    }
  }

  const PackedEntry& entry_;
  const SourceMatrix& source_;
  std::vector<float> values_;
  std::vector<std::byte> rows_;
  std::vector<float> square_;
  int64_t square_index_ = -1;
};

// What one unit of rows takes: a panel, or a row.
struct Unit {
  int64_t rows;
  int64_t bytes;
};

Unit unit_of(const PackedEntry& entry) {
  if (entry.panels) return {kPanelRows, panel_bytes(entry.format, entry.cols)};
  return {1, row_bytes(entry.format, entry.cols)};
}

// Packs rows [first, last) of an entry in parallel.
Status pack_rows(const PackedEntry& entry,
                 const SourceMatrix& source,
                 int64_t first,
                 int64_t last,
                 ThreadPool& pool,
                 std::byte* out) {
  const Unit unit = unit_of(entry);
  const int64_t units = (last - first + unit.rows - 1) / unit.rows;
  std::mutex mutex;
  Status status;
  pool.run(units, 1, [&](int64_t begin, int64_t end, int) {
    PartPacker packer(entry, source);
    Status part =
        packer.pack(first + begin * unit.rows, std::min(first + end * unit.rows, last), out + begin * unit.bytes);
    if (part) return;
    const std::scoped_lock lock(mutex);
    status = std::move(part);
  });
  return status;
}

// Packs all entries in order, part by part: place(offset, bytes) says where a part is to go (it may be overwritten by
// the next), done(bytes) takes it.
template <class Place, class Done>
Status pack_all(const PackedPlan& plan,
                const Checkpoint& checkpoint,
                ThreadPool& pool,
                const PackOptions& options,
                const Place& place,
                const Done& done) {
  for (const PackedEntry& entry : plan.entries) {
    LATHE_TRY(const SourceMatrix source, SourceMatrix::open(checkpoint, entry.source));
    const Unit unit = unit_of(entry);
    const int64_t step = std::max<int64_t>(1, kPartBytes / unit.bytes) * pool.threads() * unit.rows;
    for (int64_t row = 0; row < entry.rows; row += step) {
      const int64_t last = std::min(row + step, entry.rows);
      const uint64_t begin = entry.offset + static_cast<uint64_t>(row / unit.rows * unit.bytes);
      const uint64_t end = last == entry.rows ? entry.offset + entry.bytes
                                              : entry.offset + static_cast<uint64_t>(last / unit.rows * unit.bytes);
      std::byte* out = place(begin, end - begin);
      LATHE_TRY(pack_rows(entry, source, row, last, pool, out));
      LATHE_TRY(done(std::span<const std::byte>(out, end - begin)));
      if (options.on_progress) options.on_progress(end, plan.bytes);
    }
    source.release();
  }
  return {};
}

}  // namespace

Status PackedWeights::allocate() {
  memory_ = AnonymousMemory(plan_.bytes, AnonymousMemory::Commit::kNow);
  if (memory_.data() == nullptr) {
    return Error{Errc::kResourceExhausted, str("no memory for ", human_bytes(plan_.bytes), " of packed weights")};
  }
  data_ = memory_.data();
  return {};
}

void PackedWeights::index() {
  by_name_.resize(plan_.entries.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::ranges::sort(by_name_, {}, [&](uint32_t i) { return std::string_view(plan_.entries[i].name); });
}

bool PackedWeights::map(const PackedFile& file) {
  map_ = map_packed_file(file, plan_);
  if (map_ == nullptr) return false;
  data_ = map_->bytes().data() + kPackedHeaderBytes;
  if (const uint64_t bytes = map_->bytes().size(); HugePageCopy::pays(bytes)) {
    huge_pages_ = std::make_unique<const HugePageCopy>(map_, HugePageCopy::usual_delay(bytes));
  }
  return true;
}

std::optional<WeightMatrix> PackedWeights::find(std::string_view name) const {
  const auto name_of = [&](uint32_t i) { return std::string_view(plan_.entries[i].name); };
  const auto at = std::ranges::lower_bound(by_name_, name, {}, name_of);
  if (at == by_name_.end() || name_of(*at) != name) return std::nullopt;
  const PackedEntry& entry = plan_.entries[*at];
  return WeightMatrix{.dtype = entry.format,
                      .rows = entry.rows,
                      .cols = entry.cols,
                      .data = data_ + entry.offset,
                      .packed = entry.panels};
}

Result<std::shared_ptr<const PackedWeights>> PackedWeights::open(PackedPlan packing,
                                                                 const Checkpoint& checkpoint,
                                                                 ThreadPool& pool,
                                                                 const PackOptions& options) {
  std::shared_ptr<PackedWeights> out(new PackedWeights());
  out->plan_ = std::move(packing);
  const PackedPlan& plan = out->plan_;
  if (plan.bytes == 0) return std::shared_ptr<const PackedWeights>();
  out->index();
  if (!options.cache_folder.empty() && plan.bytes >= options.smallest_file) {
    LATHE_TRY(const PackedFile file, packed_file(options.cache_folder, plan, checkpoint));
    if (out->map(file)) return std::shared_ptr<const PackedWeights>(std::move(out));
    std::vector<std::byte> part;
    const auto place = [&](uint64_t, uint64_t bytes) {
      part.assign(bytes, std::byte{0});
      return part.data();
    };
    LATHE_TRY(const bool written, write_packed_file(file, plan, [&](const PackedSink& sink) {
                return pack_all(plan, checkpoint, pool, options, place, sink);
              }));
    if (written && out->map(file)) return std::shared_ptr<const PackedWeights>(std::move(out));
  }
  LATHE_TRY(out->allocate());
  std::byte* memory = out->memory_.data();
  LATHE_TRY(pack_all(
      plan,
      checkpoint,
      pool,
      options,
      [&](uint64_t offset, uint64_t) { return memory + offset; },
      [](std::span<const std::byte>) { return Status(); }));
  return std::shared_ptr<const PackedWeights>(std::move(out));
}

namespace {

// Random integers, and scales that give a row of n values of deviation about 1 / sqrt(n), as trained matrices have.
void fill_unit(const PackedEntry& entry, Rng& rng, std::byte* out) {
  const int64_t rows = entry.panels ? kPanelRows : 1;
  const int64_t bytes = row_bytes(entry.quantised, entry.cols);
  std::vector<float> values(static_cast<size_t>(entry.cols));
  std::vector<std::byte> stored(static_cast<size_t>(rows * bytes));
  const double deviation = 1.0 / std::sqrt(static_cast<double>(entry.cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (float& v : values) v = static_cast<float>((rng.next_uniform() - 0.5) * 3.4641 * deviation);
    quantise_row(entry.quantised, values, stored.data() + r * bytes);
  }
  if (entry.panels) {
    pack_panel({.dtype = entry.format, .rows = rows, .cols = entry.cols, .data = stored.data()}, 0, out);
  } else {
    encode_row(entry.format, values, out);
  }
}

}  // namespace

Result<std::shared_ptr<const PackedWeights>> PackedWeights::synthetic(PackedPlan plan,
                                                                      uint64_t seed,
                                                                      ThreadPool& pool) {
  std::shared_ptr<PackedWeights> out(new PackedWeights());
  out->plan_ = std::move(plan);
  out->index();
  LATHE_TRY(out->allocate());
  for (size_t i = 0; i < out->plan_.entries.size(); ++i) {
    const PackedEntry& entry = out->plan_.entries[i];
    const Unit unit = unit_of(entry);
    // A few random units, repeated: drawing every value would take minutes, and speed does not depend on them.
    constexpr int64_t kDifferent = 8;
    std::vector<std::byte> units(static_cast<size_t>(kDifferent * unit.bytes));
    Rng rng(seed + i);
    for (int64_t u = 0; u < kDifferent; ++u) fill_unit(entry, rng, units.data() + u * unit.bytes);
    std::byte* to = out->memory_.data() + entry.offset;
    pool.run((entry.rows + unit.rows - 1) / unit.rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t u = begin; u < end; ++u) {
        std::memcpy(to + u * unit.bytes,
                    units.data() + (u * 5 + u / kDifferent) % kDifferent * unit.bytes,
                    static_cast<size_t>(unit.bytes));
      }
    });
  }
  return std::shared_ptr<const PackedWeights>(std::move(out));
}

}  // namespace lathe
