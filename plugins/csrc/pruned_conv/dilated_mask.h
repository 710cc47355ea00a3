// The pixels of the dilated mask of PrunedConv on the CPU: a masked pixel needs the 1x1 result of
// its 3x3 neighbourhood.
#pragma once

#include <stdint.h>

#include "../common/buffer.h"
#include "../common/parallel.h"

namespace deblur {

constexpr float kMaskThreshold = 0.5f;  // a pixel with a larger mask value is computed

// The dilated mask of one image: the sorted list of its pixels, and a map of the image, with a
// border of one pixel, that holds the position of a pixel in the list plus one, or 0 if it is not
// listed.
class DilatedMask {
 public:
  DilatedMask(int64_t h, int64_t w)
      : h_(h), w_(w), map_((h + 2) * (w + 2)), list_(h * w), line_starts_(2 * (h + 1)) {}

  explicit operator bool() const { return map_ && list_ && line_starts_; }

  // Lists the pixels of mask [h, w]: marks and counts them line by line, adds the counts up, then
  // numbers them, again line by line.
  void find(const float* mask, ThreadPool& pool) {
    int32_t* map = reinterpret_cast<int32_t*>(map_.data());
    for (int64_t x = 0; x < w_ + 2; ++x) map[x] = map[(h_ + 1) * (w_ + 2) + x] = 0;
    parallel_for(pool, h_, [&](int64_t y) { line_starts()[y + 1] = mark_row(mask, y); });
    line_starts()[0] = 0;
    for (int64_t y = 0; y < h_; ++y) line_starts()[y + 1] += line_starts()[y];
    parallel_for(pool, h_, [&](int64_t y) { number_row(y); });
  }

  // How many pixels are listed before a row: rows [begin, end) have the positions [first(begin),
  // first(end)).
  int64_t first(int64_t row) const { return row < 0 ? 0 : line_starts()[row < h_ ? row : h_]; }
  // The list, of pixels y * w + x.
  const int32_t* list() const { return reinterpret_cast<const int32_t*>(list_.data()); }
  // The map around pixel (y, x), from its upper left neighbour on; a row of the map has w + 2
  // values.
  const int32_t* around(int64_t y, int64_t x) const {
    return reinterpret_cast<const int32_t*>(map_.data()) + y * (w_ + 2) + x;
  }

 private:
  int64_t* line_starts() const { return reinterpret_cast<int64_t*>(line_starts_.data()); }
  int32_t* row(int64_t y) const {
    return reinterpret_cast<int32_t*>(map_.data()) + (y + 1) * (w_ + 2);
  }

  // Sets row y of the map to 1 in the dilated mask, 0 elsewhere; returns how many are 1. It dilates
  // vertically, by an OR of three mask rows, then horizontally.
  int64_t mark_row(const float* mask, int64_t y) {
    int32_t* marks = row(y);
    for (int64_t x = 0; x < w_ + 2; ++x) marks[x] = 0;
    for (int64_t near = y > 0 ? y - 1 : 0; near < h_ && near <= y + 1; ++near)
      for (int64_t x = 0; x < w_; ++x) marks[x + 1] |= mask[near * w_ + x] > kMaskThreshold;
    int64_t count = 0;
    int32_t before = 0;
    for (int64_t x = 1; x <= w_; ++x) {
      const int32_t own = marks[x], after = x < w_ ? marks[x + 1] : 0;
      marks[x] = before | own | after;
      count += marks[x];
      before = own;
    }
    return count;
  }

  // Writes the pixels of row y to the list and their positions to the map.
  void number_row(int64_t y) {
    int32_t *marks = row(y), *list = reinterpret_cast<int32_t*>(list_.data());
    int64_t number = line_starts()[y];
    for (int64_t x = 0; x < w_; ++x) {
      if (marks[x + 1] == 0) continue;
      list[number++] = static_cast<int32_t>(y * w_ + x);
      marks[x + 1] = static_cast<int32_t>(number);
    }
  }

  int64_t h_, w_;
  FloatBuffer map_, list_, line_starts_;
};

}  // namespace deblur
