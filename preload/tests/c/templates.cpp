// Much work for a compiler: templates that instantiate each other, and large headers of the standard
// library.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Chain {
    std::tuple<std::array<int, N + 1>, std::vector<Chain<N - 1>>> link;
    template <class F> auto apply(F f) const { return f(N) + std::get<1>(link).at(0).apply(f); }
};
template <> struct Chain<0> {
    template <class F> auto apply(F f) const { return f(0); }
};

template <class... T> std::size_t sizes(const std::variant<T...> &v) {
    return std::visit([](const auto &x) { return sizeof x; }, v) + (sizeof(T) + ...);
}

int main() {
    std::map<std::string, std::unordered_map<int, std::vector<std::shared_ptr<std::string>>>> deep;
    deep["a"][1].push_back(std::make_shared<std::string>("b"));
    std::regex expression("(a|b)*c");
    std::function<int(int)> twice = [](int x) { return 2 * x; };
    std::variant<int, double, std::string, std::vector<int>> value = 1.0;
    return Chain<20>().apply(twice) + std::regex_match("abc", expression) + int(sizes(value)) + int(deep.size());
}
