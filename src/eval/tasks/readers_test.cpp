// Prompts, choices and answers of each form of each data set, from small files of our own.
#include "eval/tasks/readers.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace dmc::eval {
namespace {

namespace fs = std::filesystem;
using Texts = std::vector<std::string>;

class Readers : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }

  // Error(kData) that names the file.
  template <class Read>
  void expect_refused(Read read, const std::string& name, const std::string& content) {
    const fs::path file = write(name, content);
    try {
      read(file);
      ADD_FAILURE() << "taken: " << content;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData);
      EXPECT_NE(std::string(error.what()).find(folder_.string()), std::string::npos)
          << error.what();
    }
  }

  const TempFolder folder_of_test_;
  const fs::path folder_ = folder_of_test_.path();
};

TEST_F(Readers, Piqa) {
  write("valid-labels.lst", "1\n0\n");
  const auto items = read_piqa(
      write("valid.jsonl", R"({"goal": "Dry a shirt", "sol1": "Hang it.", "sol2": "Soak it."})"
                           "\n"
                           R"({"goal": "g", "sol1": "é", "sol2": "zwei"})"
                           "\n"));
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].contexts, Texts{"Question: Dry a shirt\nAnswer:"});
  EXPECT_EQ(items[0].endings, (Texts{" Hang it.", " Soak it."}));
  EXPECT_EQ(items[0].gold, 1u);
  EXPECT_EQ(items[1].lengths, (std::vector<int64_t>{1, 4})) << "in characters";

  write("valid-labels.lst", "1\n");
  EXPECT_THROW(read_piqa(folder_ / "valid.jsonl"), Error) << "one label for two questions";
  write("valid-labels.lst", "1\n2\n");
  EXPECT_THROW(read_piqa(folder_ / "valid.jsonl"), Error) << "a label that is no choice";
}

TEST_F(Readers, BoolqWithTruthAsValueOrText) {
  for (const char* truth : {"true", R"("True")", R"("true")"}) {
    const auto items = read_boolq(
        write("dev.jsonl",
              std::string(R"({"question": "is it", "passage": "P.", "answer": )") + truth + "}\n"));
    EXPECT_EQ(items.at(0).contexts, Texts{"P.\nQuestion: is it?\nAnswer:"});
    EXPECT_EQ(items[0].endings, (Texts{" no", " yes"}));
    EXPECT_EQ(items[0].gold, 1u);
    EXPECT_TRUE(items[0].lengths.empty()) << "no acc_norm";
  }
  expect_refused(read_boolq, "dev.jsonl",
                 R"({"question": "q", "passage": "p", "answer": "maybe"})");
  expect_refused(read_boolq, "dev.jsonl", R"({"question": "q", "passage": "p"})");
  expect_refused(read_boolq, "dev.jsonl", R"({"question": 3, "passage": "p", "answer": true})");
  expect_refused(read_boolq, "dev.jsonl", "[1]");
  expect_refused(read_boolq, "dev.jsonl", "{");
}

TEST_F(Readers, ArcInBothForms) {
  const auto published = read_arc(
      write("ARC.jsonl",
            R"({"id": "1", "question": {"stem": "Why?", "choices": [{"text": "a", "label": "1"},)"
            R"( {"text": "bb", "label": "2"}, {"text": "c", "label": "3"}]}, "answerKey": "2"})"));
  const auto passed_on = read_arc(write(
      "test.json",
      R"([{"instruction": "Please choose the correct answer to the question: Why?\n\nAnswer1: a )"
      R"(Answer2: bb Answer3: c\n\nAnswer format: answer1/answer2/answer3", "input": "",)"
      R"( "output": "the correct answer is answer2", "answer": "answer2"}])"));
  for (const auto& items : {published, passed_on}) {
    ASSERT_EQ(items.size(), 1u);
    EXPECT_EQ(items[0].contexts, Texts{"Question: Why?\nAnswer:"});
    EXPECT_EQ(items[0].endings, (Texts{" a", " bb", " c"}));
    EXPECT_EQ(items[0].gold, 1u);
    EXPECT_EQ(items[0].lengths, (std::vector<int64_t>{1, 2, 1}));
  }
  expect_refused(read_arc, "ARC.jsonl",
                 R"({"question": {"stem": "Why?", "choices": []}, "answerKey": "2"})");
  expect_refused(read_arc, "test.json", R"([{"instruction": "Why?", "answer": "answer1"}])");
  expect_refused(read_arc, "test.json",
                 R"([{"instruction": "c: Why?\n\nAnswer1: a\n\nAnswer format: answer1",)"
                 R"( "answer": "answer2"}])");
}

TEST_F(Readers, Hellaswag) {
  const auto items = read_hellaswag(write(
      "val.jsonl", R"({"activity_label": "Cooking", "ctx_a": "A pan [header] heats [title] Oil.", )"
                   R"("ctx_b": "the Cook", "endings": ["[step] stirs  it. ", "x"], "label": 0})"));
  ASSERT_EQ(items.size(), 1u);
  // What the published cleaning makes of it: one pass over double spaces.
  EXPECT_EQ(items[0].contexts, Texts{"Cooking: A pan heats. Oil. The cook"});
  EXPECT_EQ(items[0].endings, (Texts{"  stirs it.", " x"}));

  const auto text =
      read_hellaswag(write("val.txt",
                           "Cooking: A pan heats. the cook\n2\nsings.\ndances.\nstirs.\nx\n"
                           "Tuning: Open it. Look.\n0\na\nb\nc\nd\n"));
  ASSERT_EQ(text.size(), 2u);
  EXPECT_EQ(text[0].contexts, Texts{"Cooking: A pan heats. The cook"});
  EXPECT_EQ(text[0].endings[2], " stirs.");
  EXPECT_EQ(text[0].gold, 2u);
  EXPECT_EQ(text[1].contexts, Texts{"Tuning: Open it. Look."});
  expect_refused(read_hellaswag, "val.txt", "c\n4\na\nb\nc\nd\n");
}

TEST_F(Readers, WinograndeInThreeForms) {
  const auto published = read_winogrande(
      write("dev.jsonl", R"({"qID": "1", "sentence": "Ann met Bea so _ was glad .", )"
                         R"("option1": "Ann", "option2": "Bea", "answer": "2"})"));
  const auto partial = read_winogrande(
      write("partial.jsonl", R"({"context_options": ["Ann met Bea so Ann", "Ann met Bea so Bea"], )"
                             R"("continuation": "was glad .", "gold": 1})"));
  const auto passed_on = read_winogrande(write(
      "test.json",
      R"([{"instruction": "Please choose the correct answer to fill in the blank to complete the )"
      R"(given sentence: Ann met Bea so _ was glad .\n\nOption1: Ann Option2: Bea )"
      R"(Answer format: option1/option2", "answer": "option2"}])"));
  for (const auto& items : {published, partial, passed_on}) {
    ASSERT_EQ(items.size(), 1u);
    EXPECT_EQ(items[0].contexts, (Texts{"Ann met Bea so Ann", "Ann met Bea so Bea"}));
    EXPECT_EQ(items[0].endings, Texts{" was glad ."});
    EXPECT_EQ(items[0].gold, 1u);
  }
  expect_refused(read_winogrande, "dev.jsonl",
                 R"({"sentence": "none", "option1": "a", "option2": "b", "answer": "1"})");
  expect_refused(read_winogrande, "dev.jsonl",
                 R"({"sentence": "a _", "option1": "a", "option2": "b", "answer": "0"})");
}

TEST_F(Readers, MmluPutsExamplesOfTheSubjectBefore) {
  const std::string question = R"("Which, ""one""?)"
                               "\n"
                               R"(Two",a,"b,b",c,d,)";
  write("mmlu/dev/high_school_x_dev.csv", "first?,1,2,3,4,B\n" + question + "D\n");
  write("mmlu/test/high_school_x_test.csv",
        "question,choice0,choice1,choice2,choice3,answer\n" + question + "0\n");
  write("mmlu/dev/art_dev.csv", "q,1,2,3,4,A\n");
  write("mmlu/test/art_test.csv", "q,1,2,3,4,A\nr,1,2,3,4,C\n");
  const auto items = read_mmlu(folder_ / "mmlu");
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].subject, "art");
  EXPECT_EQ(items[1].gold, 2u);
  const std::string prompt = "Which, \"one\"?\nTwo\nA. a\nB. b,b\nC. c\nD. d\nAnswer:";
  EXPECT_EQ(items[2].beginning,
            "The following are multiple choice questions (with answers) about high school x.\n\n"
            "first?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n" +
                prompt + " D\n\n");
  EXPECT_EQ(items[2].contexts, Texts{items[2].beginning + prompt});
  EXPECT_EQ(items[2].endings, (Texts{" A", " B", " C", " D"}));
  EXPECT_EQ(items[2].gold, 0u);
  write("mmlu/test/art_test.csv", "q,1,2,3,A\n");
  EXPECT_THROW(read_mmlu(folder_ / "mmlu"), Error);
  write("mmlu/test/art_test.csv", "q,1,2,3,4,E\n");
  EXPECT_THROW(read_mmlu(folder_ / "mmlu"), Error);
  write("mmlu/test/art_test.csv", "\"q,1,2,3,4,A\n");
  EXPECT_THROW(read_mmlu(folder_ / "mmlu"), Error) << "a quote that does not end";
}

TEST_F(Readers, LambadaAsksForTheLastWord) {
  const auto items = read_lambada(write("test.jsonl", R"({"text": "She said\n\"No,\" he said"})"));
  EXPECT_EQ(items.at(0).contexts, Texts{"She said\n\"No,\" he"});
  EXPECT_EQ(items[0].endings, Texts{" said"});
  expect_refused(read_lambada, "test.jsonl", R"({"text": "one"})");
}

TEST_F(Readers, PackedFilesThatAreDamagedAreRefused) {
  expect_refused(read_hellaswag, "val.txt.bz2", "not packed");
  const fs::path gz = write("val.jsonl.gz", std::string("\x1f\x8b\x08\0\0\0\0\0\0\0xx", 12));
  EXPECT_THROW(read_lambada(gz), Error);
  EXPECT_THROW(read_lambada(folder_ / "absent.jsonl"), Error);
}

TEST(Tasks, EveryOneIsFoundByNameAndSaysWhatItNeeds) {
  for (const Task& task : tasks()) {
    EXPECT_EQ(&find_task(task.name), &task);
    if (task.files.empty()) continue;
    try {
      find_file(task, "no/such/folder");
      ADD_FAILURE() << task.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(task.files[0]), std::string::npos);
    }
  }
  EXPECT_THROW(find_task("no-such-task"), Error);
}

}  // namespace
}  // namespace dmc::eval
