#include "lathe/formats/layer_name.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

TEST(LayerName, SplitsNamesOfLayers) {
  const LayerName name = split_layer_name("model.layers.12.mlp.experts.3.down_proj.weight");
  EXPECT_EQ(name.layer, 12);
  EXPECT_EQ(name.rest, "mlp.experts.3.down_proj.weight");
  EXPECT_EQ(split_layer_name(layer_prefix(60) + "eh_proj.weight").layer, 60);
  EXPECT_EQ(split_layer_name(layer_prefix(0)).rest, "");
}

TEST(LayerName, KnowsOtherNames) {
  for (const char* name : {"",
                           "model.norm.weight",
                           "model.layers.",
                           "model.layers.7",
                           "model.layers.x.mlp",
                           "blk.3.ffn",
                           "model.layers.-1.mlp",
                           "model.layers..mlp",
                           "model.layers.99999999999999999999.mlp"}) {
    EXPECT_EQ(split_layer_name(name).layer, -1) << name;
    EXPECT_EQ(split_layer_name(name).rest, "") << name;
  }
}

}  // namespace
}  // namespace lathe
