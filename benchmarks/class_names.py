"""One hundred class names of ImageNet, as people write them: the class list of the text-tower benchmark."""

NAMES = """tench; great white shark; tiger shark; electric ray; rooster; ostrich; brambling; goldfinch; American robin; bulbul;
bald eagle; great grey owl; fire salamander; smooth newt; axolotl; American bullfrog; tree frog; loggerhead sea
turtle; leatherback sea turtle; box turtle; banded gecko; green iguana; Carolina anole; desert grassland whiptail
lizard; chameleon; Komodo dragon; Nile crocodile; triceratops; worm snake; ring-necked snake; eastern hog-nosed
snake; kingsnake; vine snake; boa constrictor; Indian cobra; green mamba; sea snake; harvestman; scorpion; southern
black widow; tarantula; centipede; black grouse; ruffed grouse; peacock; quail; African grey parrot; macaw; sulphur-
crested cockatoo; hummingbird; jacamar; toucan; red-breasted merganser; black swan; tusker; echidna; platypus;
wallaby; koala; wombat; jellyfish; sea anemone; brain coral; nematode; conch; snail; chambered nautilus; Dungeness
crab; American lobster; crayfish; hermit crab; white stork; flamingo; little blue heron; limpkin; American coot;
bustard; king penguin; albatross; grey whale; killer whale; sea lion; Chihuahua; Japanese Chin; Shih Tzu; Rhodesian
Ridgeback; golden retriever; Labrador Retriever; German Shepherd Dog; Siberian Husky; Alaskan Malamute; Pembroke
Welsh Corgi; Arctic fox; tabby cat; Siamese cat; snow leopard; ambulance; aircraft carrier; coffee mug; fire truck"""

CLASS_NAMES = [name.strip() for name in NAMES.replace("\n", " ").split(";")]
assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 100
