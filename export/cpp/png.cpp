#include "png.h"

#include <png.h>

#include <stdexcept>
#include <string>

namespace homomorph {
namespace {

// A decoded picture of this size takes 256 MB. A file of a few bytes may claim to be larger.
constexpr int64_t kMaxPixels = 64'000'000;

// libpng's structure for one file. It owns memory while the file is read or written, and holds the error message.
struct Image : png_image {
  Image() : png_image{} { version = PNG_IMAGE_VERSION; }
  ~Image() { png_image_free(this); }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
};

}  // namespace

Picture read_png(const std::filesystem::path& path) {
  Image image;
  if (!png_image_begin_read_from_file(&image, path.c_str())) {
    throw std::runtime_error(path.string() + " cannot be read as PNG: " + image.message);
  }
  const int64_t height = image.height, width = image.width;
  if (height * width > kMaxPixels) {
    throw std::runtime_error(path.string() + " has more than " + std::to_string(kMaxPixels / 1'000'000) +
                             " million pixels: scale it down first");
  }
  // Without this, libpng reads 16-bit values as linear light.
  image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  // Alpha is kept, because libpng would blend it with white in linear light, unlike the client.
  image.format = PNG_FORMAT_RGBA;
  std::vector<uint8_t> rgba(PNG_IMAGE_SIZE(image));
  if (!png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr)) {
    throw std::runtime_error(path.string() + " is truncated or damaged: " + image.message);
  }
  Picture picture{height, width, std::vector<uint8_t>(height * width * 3)};
  for (int64_t pixel = 0; pixel < height * width; ++pixel) {
    const int alpha = rgba[pixel * 4 + 3];
    for (int channel = 0; channel < 3; ++channel) {
      const int on_white = rgba[pixel * 4 + channel] * alpha + 255 * (255 - alpha);
      picture.pixels[pixel * 3 + channel] = static_cast<uint8_t>((on_white + 127) / 255);
    }
  }
  return picture;
}

void write_png(const std::filesystem::path& path, const Picture& picture) {
  Image image;
  image.height = static_cast<png_uint_32>(picture.height);
  image.width = static_cast<png_uint_32>(picture.width);
  image.format = PNG_FORMAT_RGB;
  if (!png_image_write_to_file(&image, path.c_str(), 0, picture.pixels.data(), 0, nullptr)) {
    throw std::runtime_error(path.string() + " cannot be written: " + image.message);
  }
}

}  // namespace homomorph
