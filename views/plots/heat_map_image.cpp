#include "views/plots/heat_map_image.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace rat {
namespace {

void put_u32(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

uint32_t crc32(std::string_view bytes) {
  uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

void put_chunk(std::string& out, std::string_view type, std::string_view body) {
  put_u32(out, static_cast<uint32_t>(body.size()));
  const std::string typed = std::string(type) + std::string(body);
  out += typed;
  put_u32(out, crc32(typed));
}

// A zlib stream of stored blocks (RFC 1950, 1951).
std::string stored_zlib(std::string_view bytes) {
  std::string out("\x78\x01");
  uint32_t a = 1, b = 0;  // Adler-32
  for (const char c : bytes) {
    a = (a + static_cast<uint8_t>(c)) % 65521;
    b = (b + a) % 65521;
  }
  do {
    const std::string_view block = bytes.substr(0, 65535);
    bytes.remove_prefix(block.size());
    const auto n = static_cast<uint16_t>(block.size());
    out.push_back(bytes.empty() ? 1 : 0);
    for (const uint16_t length : {n, static_cast<uint16_t>(~n)}) {
      out.push_back(static_cast<char>(length & 0xff));
      out.push_back(static_cast<char>(length >> 8));
    }
    out += block;
  } while (!bytes.empty());
  put_u32(out, b << 16 | a);
  return out;
}

}  // namespace

float color_position_on_bar(const HeatMap& map, float share) {
  return map.gamma_color && !map.log_color ? std::sqrt(share) : share;
}

float color_position(const HeatMap& map, float value) {
  if (std::isnan(value)) return value;
  if (!map.log_color)
    return color_position_on_bar(map, std::clamp((value - map.low) / (map.high - map.low), 0.0f, 1.0f));
  if (!(value > map.low)) return 0;
  return std::clamp(std::log(value / map.low) / std::log(map.high / map.low), 0.0f, 1.0f);
}

IndexedImage heat_map_image(const HeatMap& map, Color masked) {
  IndexedImage image{map.cols, map.rows, {}, {}};
  image.palette[0] = masked;
  for (int i = 1; i < 256; ++i)
    image.palette[static_cast<std::size_t>(i)] = color_at(map.map, static_cast<float>(i - 1) / 254.0f);
  image.pixels.reserve(map.values.size());
  for (const float value : map.values) {
    const float t = color_position(map, value);
    image.pixels.push_back(std::isnan(t) ? 0 : static_cast<uint8_t>(1 + std::lround(t * 254.0f)));
  }
  return image;
}

std::string to_png(const IndexedImage& image) {
  std::string header, palette, rows;
  put_u32(header, static_cast<uint32_t>(image.width));
  put_u32(header, static_cast<uint32_t>(image.height));
  header += std::string("\x08\x03\x00\x00\x00", 5);  // 8 bits, indexed, deflate, no filter, not interlaced
  for (const Color& color : image.palette)
    for (const uint8_t part : {color.r, color.g, color.b}) palette.push_back(static_cast<char>(part));
  for (int64_t y = 0; y < image.height; ++y) {
    rows.push_back(0);
    rows.append(reinterpret_cast<const char*>(image.pixels.data()) + y * image.width,
                static_cast<std::size_t>(image.width));
  }
  std::string out("\x89PNG\r\n\x1a\n");
  put_chunk(out, "IHDR", header);
  put_chunk(out, "PLTE", palette);
  put_chunk(out, "IDAT", stored_zlib(rows));
  put_chunk(out, "IEND", "");
  return out;
}

}  // namespace rat
