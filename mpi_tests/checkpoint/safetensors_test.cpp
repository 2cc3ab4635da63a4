// SPDX-License-Identifier: MIT
// safetensors files: what is saved is what is loaded; broken files end in one sentence and change nothing.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/errors.hpp"
#include "support/compare.hpp"
#include "syncbn/checkpoint.hpp"

namespace syncbn::testing {
namespace {

class Safetensors : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path); }
  const std::string path =
      std::filesystem::temp_directory_path() / ("syncbn_" + std::to_string(::getpid()) + ".safetensors");

  void write(const std::string& header, const std::string& data, std::int64_t length = -1) const {
    const std::uint64_t said = length < 0 ? header.size() : static_cast<std::uint64_t>(length);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&said), 8);
    file << header << data;
  }
  std::string whole() const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

BatchNorm layer_of(Index channels, DataType type = DataType::f32, bool affine = true, bool tracks = true) {
  BatchNormOptions options;
  options.num_features = channels;
  options.parameter_type = type;
  options.affine = affine;
  options.track_running_stats = tracks;
  return BatchNorm(options);
}

void fill(BatchNorm& layer, double start) {
  for (ChannelVector* vector : {&layer.gamma(), &layer.beta(), &layer.running_mean(), &layer.running_var()}) {
    for (Index c = 0; c < vector->size(); ++c) vector->set(c, start += 0.1);
  }
  layer.set_num_batches_tracked(static_cast<Index>(start * 10));
}

void expect_equal(BatchNorm& a, BatchNorm& b) {
  EXPECT_TRUE(same_bits(values_of(a.gamma()), values_of(b.gamma())));
  EXPECT_TRUE(same_bits(values_of(a.beta()), values_of(b.beta())));
  EXPECT_TRUE(same_bits(values_of(a.running_mean()), values_of(b.running_mean())));
  EXPECT_TRUE(same_bits(values_of(a.running_var()), values_of(b.running_var())));
}

TEST_F(Safetensors, LoadsWhatWasSaved) {
  BatchNorm first = layer_of(3), second = layer_of(5, DataType::f64), plain = layer_of(2, DataType::f32, false, true);
  fill(first, 0.3), fill(second, 7.1), fill(plain, 2.0);
  save_safetensors(path, {{"block.bn1", &first}, {"block.bn2", &second}, {"", &plain}});
  BatchNorm first_again = layer_of(3), second_again = layer_of(5, DataType::f64),
            plain_again = layer_of(2, DataType::f32, false);
  load_safetensors(path, {{"", &plain_again}, {"block.bn2", &second_again}, {"block.bn1", &first_again}});
  expect_equal(first_again, first);
  expect_equal(second_again, second);
  expect_equal(plain_again, plain);
  EXPECT_EQ(first_again.num_batches_tracked(), first.num_batches_tracked());
  EXPECT_EQ(whole().find("\"__metadata__\""), 9u);
}

TEST_F(Safetensors, NamesMustBeTheirOwn) {
  BatchNorm a = layer_of(3), b = layer_of(3);
  const Caught caught = error_of([&] { save_safetensors(path, {{"bn", &a}, {"bn", &b}}); });
  EXPECT_EQ(caught.code, ErrorCode::state);
  EXPECT_NE(caught.text.find("'bn.num_batches_tracked'"), std::string::npos) << caught.text;
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_NE(error_of([&] {
              save_safetensors("/nowhere/at/all", {{"bn", &a}});
            }).text.find("cannot be written"),
            std::string::npos);
}

TEST_F(Safetensors, WhatStandsAtThePathStaysWhatItIs) {
  namespace fs = std::filesystem;
  BatchNorm layer = layer_of(3);
  save_safetensors(path, {{"bn", &layer}});
  const std::string link = path + ".link";
  fs::create_symlink(fs::path(path).filename(), link);
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  fill(layer, 0.7);
  save_safetensors(link, {{"bn", &layer}});
  EXPECT_TRUE(fs::is_symlink(link));
  fs::remove(link);
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  BatchNorm again = layer_of(3);
  load_safetensors(path, {{"bn", &again}});
  expect_equal(again, layer);

  const std::string pipe = path + ".pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const Caught caught = error_of([&] { save_safetensors(pipe, {{"bn", &layer}}); });
  EXPECT_NE(caught.text.find("is not a file that could be replaced"), std::string::npos) << caught.text;
  EXPECT_TRUE(fs::is_fifo(pipe));
  fs::remove(pipe);
}

TEST_F(Safetensors, WhatDoesNotFitChangesNothing) {
  BatchNorm saved = layer_of(3);
  fill(saved, 0.3);
  save_safetensors(path, {{"bn", &saved}});
  BatchNorm fits = layer_of(3), wide = layer_of(4);
  for (const auto& [layers, fragment] : std::vector<std::pair<std::vector<NamedLayer>, std::string>>{
           {{{"bn", &fits}, {"bn", &wide}}, "has a tensor 'bn.weight' of shape (3), the layer has 4 channels"},
           {{{"bn", &fits}, {"other", &wide}}, "has no tensor 'other.weight'"}}) {
    const Caught caught = error_of([&, wanted = layers] { load_safetensors(path, wanted); });
    EXPECT_EQ(caught.code, ErrorCode::state);
    EXPECT_NE(caught.text.find(fragment), std::string::npos) << caught.text;
    EXPECT_EQ(fits.gamma()[0], 1.0);
  }
}

TEST_F(Safetensors, BatchCounterMayBeMissing) {
  const std::string numbers(8, '\0');
  write(
      R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"bias":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},)"
      R"("running_mean":{"dtype":"F16","shape":[1],"data_offsets":[6,8]},"running_var":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}})",
      numbers + std::string("\0\0\0\0\0\0\x08\x40", 8));
  BatchNorm layer = layer_of(1);
  layer.set_num_batches_tracked(4);
  load_safetensors(path, {{"", &layer}});
  EXPECT_EQ(layer.running_var()[0], 3.0);
  EXPECT_EQ(layer.num_batches_tracked(), 4);
}

// Each of these files lies in another way.
TEST_F(Safetensors, HostileFilesAreRefused) {
  struct Hostile {
    std::string header, data, fragment;
    std::int64_t length = -1;
  };
  const std::string good = R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  for (
      const Hostile& hostile : std::vector<Hostile>{
          {"", "", "says that its header has 4294967296 bytes", std::int64_t{1} << 32},
          {"{}", "", "it is cut off, or no safetensors file", 3},
          {"{}", "", "header has 18446744073709551615 bytes", -2},
          {"<html>no</html>", "", "no JSON object"},
          {"[1]", "", "no JSON object"},
          {std::string(100000, '['), "", "no JSON object"},
          {good, "", "it is cut off"},
          {good, "12345678", "has 8 bytes of data, its header wants 4"},
          {R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678", "a gap or an overlap"},
          {R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "12345678", "do not fit its shape"},
          {R"({"weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "",
           "more bytes than can be addressed"},
          {R"({"weight":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", "no whole number"},
          {R"({"weight":{"dtype":"F32","shape":[1e300],"data_offsets":[0,4]}})", "1234", "no whole number"},
          {R"({"weight":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234", "a dtype that there is not"},
          {R"({"weight":{"dtype":"F32","shape":[1]}})", "1234", "not its dtype, shape and data_offsets"},
          {R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234", "do not fit its shape"},
          {R"({"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
           "1234", "the same name twice"},
          {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"weight":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
           "123456", "a gap or an overlap"},
          {R"({"weight":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})", "1234", "wanted F32, F64, BF16 or F16"}}) {
    SCOPED_TRACE(hostile.header.substr(0, 100));
    write(hostile.header, hostile.data, hostile.length == -2 ? -1 : hostile.length);
    if (hostile.length == -2) {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file << std::string(8, '\xff');
    }
    BatchNorm layer = layer_of(1);
    const Caught caught = error_of([&] { load_safetensors(path, {{"", &layer}}); });
    EXPECT_EQ(caught.code, ErrorCode::state);
    EXPECT_NE(caught.text.find(hostile.fragment), std::string::npos) << caught.text;
    EXPECT_NE(caught.text.find(path), std::string::npos);
  }
  std::filesystem::remove(path);
  EXPECT_NE(error_of([&] { load_safetensors(path, {}); }).text.find("cannot be read"), std::string::npos);
}

}  // namespace
}  // namespace syncbn::testing
