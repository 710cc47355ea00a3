// Which pixels a mask asks for, and where their rows lie.
#pragma once

#include <stdint.h>

#include "../common/buffer.h"
#include "../common/parallel.h"

namespace deblur {

constexpr float kMasked = 0.5f;  // a mask value above it asks for the pixel

// Pixels of the dilated mask (3 x 3) of one image, numbered row by row: those whose 1x1 result is
// needed. `slots` is the map of their numbers plus one, 0 elsewhere, with a border of one pixel.
class Neighbours {
 public:
  Neighbours(int64_t h, int64_t w)
      : h_(h), w_(w), numbers_((h + 2) * (w + 2)), list_(h * w), firsts_(2 * (h + 1)) {}

  explicit operator bool() const { return numbers_ && list_ && firsts_; }

  void find(const float* mask, Team& team) {
    int32_t* slots = reinterpret_cast<int32_t*>(numbers_.data());
    for (int64_t x = 0; x < w_ + 2; ++x) slots[x] = slots[(h_ + 1) * (w_ + 2) + x] = 0;
    parallel_for(team, h_, [&](int64_t y) { firsts()[y + 1] = mark_row(mask, y); });
    firsts()[0] = 0;
    for (int64_t y = 0; y < h_; ++y) firsts()[y + 1] += firsts()[y];
    parallel_for(team, h_, [&](int64_t y) { number_row(y); });
  }

  // Rows [begin, end) hold the numbers [first(begin), first(end)).
  int64_t first(int64_t row) const {
    return row < 0 ? 0 : firsts()[row < h_ ? row : h_];
  }
  // Pixels by number, y * w + x.
  const int32_t* list() const { return reinterpret_cast<const int32_t*>(list_.data()); }
  // Numbers plus one around pixel (y, x): rows of w + 2, the corner above it to the left first.
  const int32_t* around(int64_t y, int64_t x) const {
    return reinterpret_cast<const int32_t*>(numbers_.data()) + y * (w_ + 2) + x;
  }

 private:
  int64_t* firsts() const { return reinterpret_cast<int64_t*>(firsts_.data()); }
  int32_t* row(int64_t y) const {
    return reinterpret_cast<int32_t*>(numbers_.data()) + (y + 1) * (w_ + 2);
  }

  // Sets row y of the map to 1 in the dilated mask, 0 elsewhere; returns how many are 1.
  int64_t mark_row(const float* mask, int64_t y) {
    int32_t* marks = row(y);
    for (int64_t x = 0; x < w_ + 2; ++x) marks[x] = 0;
    for (int64_t near = y > 0 ? y - 1 : 0; near < h_ && near <= y + 1; ++near)
      for (int64_t x = 0; x < w_; ++x) marks[x + 1] |= mask[near * w_ + x] > kMasked;
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

  void number_row(int64_t y) {
    int32_t *marks = row(y), *list = reinterpret_cast<int32_t*>(list_.data());
    int64_t number = firsts()[y];
    for (int64_t x = 0; x < w_; ++x) {
      if (marks[x + 1] == 0) continue;
      list[number++] = static_cast<int32_t>(y * w_ + x);
      marks[x + 1] = static_cast<int32_t>(number);
    }
  }

  int64_t h_, w_;
  Floats numbers_, list_, firsts_;
};

}  // namespace deblur
