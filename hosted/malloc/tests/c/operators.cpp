// C++'s operators and containers.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            std::fprintf(stderr, "operators.cpp:%d: %s\n", __LINE__, #what);                       \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

struct alignas(256) Wide {
    char bytes[300];
};

static int handled = 0;

static void containers() {
    std::map<int, std::string> tree;
    std::unordered_map<std::string, std::vector<int>> table;
    for (int i = 0; i < 20000; i++) {
        tree[i * 7919 % 20011] = std::string(i % 90, 'x');
        table["key " + std::to_string(i % 999)].push_back(i);
    }
    CHECK(tree.size() == 20000 && table.size() == 999 && table["key 5"][1] == 1004);
    auto wide = std::make_unique<Wide[]>(10);
    CHECK(reinterpret_cast<std::uintptr_t>(&wide[3]) % 256 == 0);
}

int main() {
    containers();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back(containers);
    for (auto &thread : threads)
        thread.join();
    volatile std::size_t most = SIZE_MAX / 2;
    bool thrown = false;
    try {
        delete[] static_cast<char *>(operator new[](most));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    CHECK(operator new(most, std::nothrow) == nullptr);
    std::set_new_handler([] {
        handled++;
        std::set_new_handler(nullptr);
    });
    CHECK(operator new(most, std::nothrow) == nullptr && handled == 1);
    void *object = operator new(100, std::align_val_t(4096));
    CHECK(reinterpret_cast<std::uintptr_t>(object) % 4096 == 0);
    operator delete(object, 100, std::align_val_t(4096));
    int *number = new int(5);
    CHECK(*number == 5);
    operator delete(number, sizeof(int));
    delete[] new std::string[10];
    std::puts("every operator does what it should");
}
